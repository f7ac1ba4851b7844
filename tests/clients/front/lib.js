// An application in a browser: its page, its script, and its tickets.
import http from 'node:http';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { build } from 'esbuild';
import { browser, page } from '../lib/browser.js';
import { freePort, until } from '../lib/processes.js';
import { Gateway, Redis, ticket } from '../lib/servers.js';

const HERE = import.meta.dirname;
export const CLIENT = path.resolve(HERE, '../../../clients/js');

/** The code blocks of a page of the client in a language. */
export function blocks(readme, language) {
  const text = readFileSync(path.resolve(CLIENT, readme), 'utf8');
  const found = [...text.matchAll(/^```(\w+)\n([^]*?)^```$/gm)];
  return found.filter(([, kind]) => kind === language).map(([, , code]) => code);
}

/**
 * Bundles a script for a browser. `files`: the text of files that it imports, by path. `compile`:
 * compiles files with an extension: [RegExp, (text, path) => JavaScript].
 */
export async function bundle(files, [extension, compile] = [/^$/, null]) {
  const { outputFiles: [file] } = await build({
    stdin: { contents: files.main, resolveDir: HERE },
    bundle: true,
    write: false,
    format: 'esm',
    conditions: ['browser', 'development'],
    define: { 'process.env.NODE_ENV': '"development"', 'global': 'globalThis' },
    alias: {
      '@sse-gateway/client/vue': path.join(CLIENT, 'vue/index.js'),
      '@sse-gateway/client/svelte': path.join(CLIENT, 'svelte/index.js'),
    },
    plugins: [{
      name: 'files',
      setup(build) {
        // The client has packages of its own, but a page must not have a library twice.
        build.onResolve({ filter: /^(vue|svelte)(\/|$)/ }, ({ path: name, pluginData, kind }) =>
          pluginData ? null : build.resolve(name, { resolveDir: HERE, kind, pluginData: true }));
        build.onResolve({ filter: /^\.\// }, ({ path: name }) =>
          files[name] ? { path: name, namespace: 'files' } : null);
        build.onLoad({ filter: /./, namespace: 'files' }, ({ path: name }) => ({
          contents: extension.test(name) ? compile(files[name], name) : files[name],
          resolveDir: HERE,
        }));
      },
    }],
  });
  return file.text;
}

/** Serves a page at `/` and files by path, and issues tickets for user 42. Resolves to the URL. */
async function serve(t, files) {
  const site = http.createServer((request, response) => {
    if (request.method === 'POST' && request.url === '/api/sse-ticket') {
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ ticket: ticket('42') }));
      return;
    }
    const type = request.url.endsWith('.js') ? 'text/javascript' : 'text/html';
    const found = files[request.url];
    response.writeHead(found === undefined ? 404 : 200, { 'content-type': type }).end(found);
  });
  await new Promise((resolve) => { site.listen(0, '127.0.0.1', resolve); });
  t.after(() => { site.close(); site.closeAllConnections(); });
  return `http://127.0.0.1:${site.address().port}`;
}

/**
 * Starts Redis, a gateway and a browser. `open(files)` serves files and opens the page at `/`;
 * without one, a page that loads `/app.js`. The files may name the gateway of the README. `more`:
 * settings of the gateway.
 */
export async function setUp(t, more = {}) {
  const redis = await Redis.start(t);
  const client = redis.client(t);
  const port = await freePort();
  const settings = { 'cors.allowed_origins': '*', ...more };
  const start = () => Gateway.start(t, { redis, port, settings });
  const gateway = await start();
  const local = (text) => text.replaceAll('https://events.example.com', gateway.url);
  const chromium = await browser(t);
  const head = '<!doctype html><title>Page</title><link rel="icon" href="data:,">';
  const app = `${head}<div id="app"></div><script type="module" src="/app.js"></script>`;
  return {
    gateway,
    start,
    connectionsAre: (count) => until(
      async () => (await gateway.metric('sse_connections')) === count,
      `number of connections is not ${count}`,
    ),
    publish: (type, data, ...options) =>
      client.fcall('sse_publish', 1, 'user:42:events', type, JSON.stringify(data), ...options),
    open: async (files) => {
      const all = Object.entries({ '/': app, ...files });
      const served = Object.fromEntries(all.map(([name, text]) => [name, local(text)]));
      return page(t, chromium, await serve(t, served));
    },
  };
}

/** Waits until an element of the page has a text. */
export const shows = (page, selector, text) => page.waitForFunction(
  ([selector, text]) => document.querySelector(selector)?.textContent === text,
  [selector, text],
);
