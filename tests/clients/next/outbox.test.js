// The outbox of examples/next in Chromium: when it sends, in which order, and what settles a
// command.
import assert from 'node:assert/strict';
import { EventEmitter, on, once } from 'node:events';
import http from 'node:http';
import path from 'node:path';
import { test } from 'node:test';
import { build } from 'esbuild';
import { browser } from '../lib/browser.js';
import { withTimeout } from '../lib/processes.js';
import { NEXT } from './lib.js';

const { outputFiles: [script] } = await build({
  entryPoints: [path.join(NEXT, 'lib/outbox.ts')], bundle: true, write: false, format: 'esm',
});
const HTML = { 'content-type': 'text/html' };
const JSON_BODY = { 'content-type': 'application/json' };

/** Serves the outbox and receives its commands: { url, next() }. */
async function serve(t) {
  const commands = new EventEmitter();
  const server = http.createServer(async (request, response) => {
    if (request.method === 'POST') {
      const body = JSON.parse(Buffer.concat(await request.toArray()).toString());
      commands.emit('command', { url: request.url, body, response });
    } else if (request.url === '/outbox.js') {
      response.writeHead(200, { 'content-type': 'text/javascript' }).end(script.text);
    } else {
      response.writeHead(200, HTML).end('<!doctype html><link rel="icon" href="data:,">');
    }
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  t.after(() => { server.close(); server.closeAllConnections(); });
  const arrived = on(commands, 'command');
  const next = async () => {
    const { value: [command] } = await withTimeout(arrived.next(), 'no command arrives');
    return command;
  };
  return { url: `http://127.0.0.1:${server.address().port}`, next };
}

/** Opens Alice's outbox as `window.outbox`, with a clock that the test can set. */
async function openOutbox(context, url) {
  const tab = await context.newPage();
  await tab.clock.install();
  await tab.goto(url);
  await tab.evaluate(async () => {
    const { Outbox } = await import('/outbox.js');
    window.Outbox = Outbox;
    window.signedOut = 0;
    window.outbox = new Outbox('alice', () => { window.signedOut += 1; });
    window.close = window.outbox.subscribe(() => {});
    window.order = (n) => window.outbox.send({ name: `order ${n}`, url: '/orders', body: { n } });
  });
  return tab;
}

const accept = ({ response }) => response.writeHead(202, JSON_BODY).end('{}');
const pending = (tab, count) =>
  tab.waitForFunction((n) => window.outbox.state().pending.length === n, count);

test('outbox of examples/next', async (t) => {
  const { url, next } = await serve(t);
  const chromium = await browser(t);
  const opened = async (t) => {
    const context = await chromium.newContext();
    t.after(() => context.close());
    return openOutbox(context, url);
  };

  await t.test('closed outbox sends nothing', async (t) => {
    const tab = await opened(t);
    await tab.evaluate(() => window.order(1));
    const first = await next();
    assert.equal(first.url, '/orders?user=alice');
    const aborted = once(first.response, 'close');
    await tab.evaluate(() => window.close());
    await withTimeout(aborted, 'the request is not aborted');
    // Waits until it has handled the end of the request, then lets all its timers run.
    await tab.evaluate(() => navigator.locks.request('outbox:alice:', () => {}));
    await tab.clock.runFor(60_000);
    await tab.evaluate(() => { window.order(2); window.outbox.flush(); });
    await tab.evaluate(() => navigator.locks.request('outbox:alice:', () => {}));
    tab.evaluate(() => fetch('/last', { method: 'POST', body: '{}' })).catch(() => {});
    const last = await next();
    assert.equal(last.url, '/last');
    accept(last);
  });

  await t.test('commands of the same millisecond are sent in their order', async (t) => {
    const tab = await opened(t);
    await tab.clock.setFixedTime(Date.now());
    const expected = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
    await tab.evaluate((numbers) => numbers.forEach(window.order), expected);
    const received = [];
    for (const _ of expected) {
      const command = await next();
      received.push(command.body.n);
      accept(command);
    }
    assert.deepEqual(received, expected);
    await pending(tab, 0);
  });

  await t.test('commands of a user are not those of a user with a similar id', async (t) => {
    const tab = await opened(t);
    const found = await tab.evaluate(() => {
      const command = { name: 'order', url: '/orders', body: {} };
      window.close();
      new window.Outbox('alice:b', () => {}).send(command);
      window.outbox.send(command);
      return window.outbox.state().pending.length;
    });
    assert.equal(found, 1);
  });

  await t.test('redirect, page and 401 do not settle a command', async (t) => {
    const tab = await opened(t);
    await tab.evaluate(() => window.order(1));
    const answers = [[302, { location: '/login' }], [200, HTML], [401, JSON_BODY]];
    for (const [index, [status, headers]] of answers.entries()) {
      (await next()).response.writeHead(status, headers).end('{}');
      await tab.waitForFunction((count) => window.signedOut === count, index + 1);
      await pending(tab, 1);
      await tab.evaluate(() => window.outbox.flush());
    }
    accept(await next());
    await pending(tab, 0);
  });

  await t.test('refused command is named with the reason', async (t) => {
    const tab = await opened(t);
    await tab.evaluate(() => window.order(1));
    (await next()).response.writeHead(400, JSON_BODY).end('{"error":"Sold out."}');
    await pending(tab, 0);
    const { refused } = await tab.evaluate(() => window.outbox.state());
    assert.deepEqual(refused, { name: 'order 1', reason: 'Sold out.' });
  });
});
