// Setup for the React tests: a page with the hooks, its tickets, and connection metrics of the
// gateway.
import http from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { build } from 'esbuild';
import { browser, page, unmodified } from '../lib/browser.js';
import { freePort, until } from '../lib/processes.js';
import { Gateway, Redis, ticket } from '../lib/servers.js';

const HERE = import.meta.dirname;
const CLIENT = path.resolve(HERE, '../../../clients/js');
/** Resolves the folder of a package from a file. */
const folderOf = (name, from) => path.dirname(createRequire(from).resolve(`${name}/package.json`));

/** Bundles the test page, or another one, with the React of a folder. */
export async function bundle(folder, entry = path.join(HERE, 'app.jsx')) {
  const from = path.join(HERE, folder, 'package.json');
  const { outputFiles: [file] } = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    format: 'esm',
    jsx: 'automatic',
    // Strict mode only runs effects twice in the development build.
    define: { 'process.env.NODE_ENV': '"development"' },
    alias: {
      'react': folderOf('react', from),
      'react-dom': folderOf('react-dom', from),
      '@sse-gateway/client/react': path.join(CLIENT, 'react/index.js'),
    },
  });
  return file.text;
}

/**
 * Starts Redis and a gateway and opens the page: { client, gateway, restart(), tab, state,
 * tickets(), connections(), opened(), publish(n, type, channel), show(name, props), … }.
 * `state.signedOut`: `/api/sse-ticket` responds with 401; `state.failing`: `/api/orders` with 500.
 * `orders` returns the response to a GET of it, `command` that to a POST.
 * `plain`: a browser that hides background tabs.
 */
export async function setUp(
  t,
  { react = '.', settings = {}, orders = async () => [], command, claims = {}, plain = false } = {},
) {
  const script = await bundle(react);
  let tickets = 0;
  const state = { signedOut: false, failing: false };
  const site = http.createServer(async (request, response) => {
    if (request.url === '/ticket') {
      tickets += 1;
      response.end(ticket('42', claims));
    } else if (request.url === '/api/sse-ticket' && request.method === 'POST') {
      tickets += 1;
      const body = state.signedOut ? {} : { ticket: ticket('42', claims) };
      response.writeHead(state.signedOut ? 401 : 200).end(JSON.stringify(body));
    } else if (request.url === '/api/orders' && request.method === 'POST') {
      const result = await command(JSON.parse(Buffer.concat(await request.toArray()).toString()));
      response.writeHead(state.failing ? 500 : 200).end(JSON.stringify(result ?? null));
    } else if (request.url === '/api/orders') {
      response.writeHead(state.failing ? 500 : 200, { 'content-type': 'application/json' });
      response.end(JSON.stringify(await orders()));
    } else if (request.url === '/app.js') {
      response.setHeader('content-type', 'text/javascript').end(script);
    } else {
      response
        .setHeader('content-type', 'text/html')
        .end(
          '<!doctype html><title>React</title><link rel="icon" href="data:,">' +
            '<div id="root"></div><script type="module" src="/app.js"></script>',
        );
    }
  });
  await new Promise((resolve) => { site.listen(0, '127.0.0.1', resolve); });
  t.after(() => { site.close(); site.closeAllConnections(); });
  const url = `http://127.0.0.1:${site.address().port}`;

  const redis = await Redis.start(t);
  const client = redis.client(t);
  const all = { 'cors.allowed_origins': url, 'server.heartbeat': '5s', ...settings };
  const gateway = await Gateway.start(t, { redis, settings: all, port: await freePort() });
  const tab = await page(t, plain ? await unmodified(t) : await browser(t), url);
  await tab.waitForFunction(() => window.show);

  const metric = async (name) => {
    const text = await (await fetch(`${gateway.admin}/metrics`)).text();
    return text
      .split('\n')
      .filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
  };
  const connections = () => metric('sse_connections');
  return {
    client,
    gateway,
    tab,
    state,
    connections,
    restart: () => Gateway.start(t, { redis, settings: all, port: gateway.port }),
    tickets: () => tickets,
    opened: () => metric('sse_connections_opened_total'),
    connectionsAre: (count) =>
      until(async () => (await connections()) === count, `number of connections is not ${count}`),
    publish: (n, type = 'order', channel = 'user:42:events') =>
      client.fcall('sse_publish', 1, channel, type, JSON.stringify({ n })),
    show: (name, props = {}) =>
      tab.evaluate(
        ([name, props]) => window.show(name, props),
        [name, { url: `${gateway.url}/events`, ...props }],
      ),
    status: (status) => tab.waitForSelector(`.connection-status[data-state=${status}]`),
    /** Waits for `count` events and resolves to all of them: [tag, type, n]. */
    events: async (count) => {
      await tab.waitForFunction((count) => window.seen.events.length >= count, count);
      return tab.evaluate(() =>
        window.seen.events.map(({ tag, type, data }) =>
          [tag, type, data.n].filter((part) => part !== ''),
        ),
      );
    },
  };
}
