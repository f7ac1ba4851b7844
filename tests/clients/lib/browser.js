// Debian's Chromium, headless, and a page on another origin than the gateway.
import http from 'node:http';
import { chromium } from 'playwright-core';
import { folder, GUARD, kill, printed, start } from './processes.js';

const EXECUTABLE = process.env.SSE_GATEWAY_CHROMIUM ?? '/usr/bin/chromium';
const ARGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync', '--disable-dev-shm-usage'];

/** `args`: more of them for the command line. */
export async function browser(t, args = []) {
  const opened = await chromium.launch({ executablePath: EXECUTABLE, args: [...ARGS, ...args] });
  t.after(() => opened.close());
  return opened;
}

/**
 * The same without what Playwright changes for its own ends: here a tab behind another one is hidden, can be frozen, and is kept in the
 * back-forward cache. Its one context.
 */
export async function unchanged(t) {
  const process = start(EXECUTABLE, ['--headless=new', ...ARGS, '--remote-debugging-port=0', `--user-data-dir=${folder(t, 'chromium')}`, 'about:blank']);
  const address = await printed(process, ({ err }) => /DevTools listening on (ws:\S+)/.exec(err)?.[1], 'where its debugger listens');
  const opened = await chromium.connectOverCDP(address, { noDefaults: true });
  t.after(async () => {
    await opened.close();
    await kill(process, 'SIGTERM');
  });
  return opened.contexts()[0];
}

export async function page(t, browser, url, options) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(GUARD);
  const opened = await context.newPage();
  opened.complaints = [];
  opened.on('console', (message) => { if (message.type() === 'error') opened.complaints.push(message.text()); });
  opened.on('pageerror', (error) => opened.complaints.push(error.stack ?? error.message));
  await opened.goto(url);
  return opened;
}

/** A web server with one empty page; its origin. */
export async function origin(t) {
  const server = http.createServer((request, response) => {
    response.setHeader('content-type', 'text/html');
    response.end('<!doctype html><title>a page</title><link rel="icon" href="data:,">');
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  t.after(() => { server.close(); server.closeAllConnections(); });
  return `http://127.0.0.1:${server.address().port}`;
}

/** In the page: opens a native EventSource and notes what comes, and every state it was seen in, in `window.seen`. */
export function listen(page, url, names) {
  return page.evaluate(({ url, names }) => {
    const source = new EventSource(url);
    window.source = source;
    window.seen = { events: [], system: [], errors: [] };
    for (const name of [...names, 'sse.connected', 'sse.heartbeat', 'sse.gap', 'sse.busy', 'sse.closing']) {
      source.addEventListener(name, ({ type, data, lastEventId }) => {
        (name.startsWith('sse.') ? window.seen.system : window.seen.events).push({ type, data, id: lastEventId });
      });
    }
    source.addEventListener('error', () => window.seen.errors.push(source.readyState));
  }, { url, names });
}

/** What the page has seen: { events, system, errors, state }. */
export const seen = (page) => page.evaluate(() => ({ ...window.seen, state: window.source.readyState }));

/** Waits until the page has seen so many events of the name (at least). */
export const count = (page, name, least) => page.waitForFunction(
  ([name, least]) => [...window.seen.events, ...window.seen.system].filter(({ type }) => type === name).length >= least,
  [name, least],
);
