// The notification bell of docs/guides/react.md, as printed; only addresses are replaced.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { browser, page } from '../lib/browser.js';
import { folder, freePort, until } from '../lib/processes.js';
import { Gateway, Redis, SECRET } from '../lib/servers.js';
import { bundle } from './lib.js';

const GUIDE = readFileSync(
  path.join(import.meta.dirname, '../../../docs/guides/react.md'), 'utf8',
);
const [, backend] = /^```js\n([^]*?)^```$/m.exec(GUIDE);
const [, client] = /^```jsx\n([^]*?)^```$/m.exec(GUIDE);
const HTML = '<!doctype html><title>bell</title><link rel="icon" href="data:,">'
  + '<div id="root"></div><script type="module" src="/page.js"></script>';

test('notification bell of the guide has at most 20 lines', () => {
  const lines = `${backend}${client}`.split('\n').filter(Boolean);
  assert.ok(lines.length <= 20, `${lines.length} lines`);
});

test('notification bell of the guide counts, and loads after a gap', async (t) => {
  const redis = await Redis.start(t);
  const directory = folder(t, 'bell');
  const routes = new Map();
  const site = http.createServer(async (request, response) => {
    const { user } = site;
    response.json = (value) => response.end(JSON.stringify(value));
    const handlers = routes.get(`${request.method} ${request.url}`) ?? [() => response.end(HTML)];
    let n = 0;
    const next = () => handlers[n++](Object.assign(request, { user }), response, next);
    if (request.method === 'GET' && handlers.length === 1) response.setHeader('content-type',
      request.url.endsWith('.js') ? 'text/javascript' : 'text/html; charset=utf-8');
    next();
  }).listen(await freePort(), '127.0.0.1');
  await once(site, 'listening');
  t.after(() => { site.close(); site.closeAllConnections(); });
  const url = `http://127.0.0.1:${site.address().port}`;
  const gateway = await Gateway.start(t, {
    redis, settings: { 'cors.allowed_origins': url, 'server.heartbeat': '5s' },
  });

  // The application around the backend's lines, and around those of the page.
  process.env.TICKET_SECRET = SECRET;
  globalThis.app = { post: (at, ...handlers) => routes.set(`POST ${at}`, handlers) };
  globalThis.signedIn = (request, response, next) =>
    (request.user ? next() : response.writeHead(401).end());
  let refused = 0;
  const stored = [{ id: 1, text: 'a', read: true }, { id: 2, text: 'b', read: false }];
  routes.set('GET /api/notifications', [(_, response) => {
    refused += site.user ? 0 : 1;
    response.statusCode = site.user ? 200 : 401;
    response.json(site.user ? stored : { error: 'signed out' });
  }]);
  symlinkSync(
    path.join(import.meta.dirname, '../node_modules'), path.join(directory, 'node_modules'),
  );
  const module = path.join(directory, 'backend.mjs');
  writeFileSync(module, `${backend.replace('6379', String(redis.port))}
    export const close = () => redis.disconnect();`);
  const { notify, close } = await import(pathToFileURL(module));
  t.after(close);
  const entry = path.join(directory, 'page.jsx');
  writeFileSync(entry, `${client.replace('url="/events"', `url="${gateway.url}/events"`)}
    import { createRoot } from 'react-dom/client';
    createRoot(document.getElementById('root')).render(<App user={{ id: '42' }} />);`);
  const script = await bundle('.', entry);
  routes.set('GET /page.js', [(_, response) => response.end(script)]);

  site.user = { id: '42' };
  const tab = await page(t, await browser(t), url);
  const bell = (count) => tab.waitForFunction(
    (text) => document.querySelector('button')?.textContent === text, `🔔 ${count}`,
  );
  await bell(1);
  // A stream is counted before it has a position. It has one when its first frame is sent.
  await until(async () => (await gateway.metric('sse_bytes_sent_total')) > 0, 'no stream');
  const publish = async (one) => {
    stored.unshift(one);
    await notify('42', one);
  };
  await publish({ id: 3, text: 'c', read: false });
  await bell(2);
  await notify('42', { id: 3, text: 'c', read: false });
  await publish({ id: 4, text: 'd', read: false });
  await bell(3);
  stored.length = 0;
  await redis.client(t).flushall();
  await bell(0);

  assert.deepEqual(tab.consoleErrors, []);

  // Nobody is signed in: a load after a gap fails, and is repeated.
  site.user = null;
  assert.equal((await fetch(`${url}/api/sse-ticket`, { method: 'POST' })).status, 401);
  await redis.client(t).flushall();
  await until(() => refused > 0, 'no load after the gap');
  stored.push({ id: 5, text: 'e', read: false });
  site.user = { id: '42' };
  await bell(1);
});
