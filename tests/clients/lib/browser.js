// Chromium, headless, and a page on another origin than the gateway.
import http from 'node:http';
import { chromium } from 'playwright-core';
import { temporaryFolder, TIMEOUT, kill, printed, start } from './processes.js';

const EXECUTABLE = process.env.SSE_GATEWAY_CHROMIUM ?? '/usr/bin/chromium';
const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--disable-dev-shm-usage',
];

/** Starts Chromium. `args`: additional command line arguments. */
export async function browser(t, args = []) {
  const opened = await chromium.launch({
    executablePath: EXECUTABLE, args: [...ARGS, ...args], timeout: TIMEOUT,
  });
  t.after(() => opened.close());
  return opened;
}

/**
 * Starts Chromium without Playwright's changes: background tabs are hidden, can be frozen and enter
 * the back-forward cache. Resolves to its only context.
 */
export async function unmodified(t) {
  const profile = temporaryFolder('chromium');
  const process = start(EXECUTABLE, [
    '--headless=new',
    ...ARGS,
    '--remote-debugging-port=0',
    `--user-data-dir=${profile.path}`,
    'about:blank',
  ]);
  const address = await printed(
    process,
    ({ err }) => /DevTools listening on (ws:\S+)/.exec(err)?.[1],
    'the address of its debugger',
  );
  const opened = await chromium.connectOverCDP(address, { noDefaults: true, timeout: TIMEOUT });
  t.after(async () => {
    await opened.close();
    await kill(process, 'SIGTERM');
    profile.remove();
  });
  return opened.contexts()[0];
}

/**
 * Opens a page that records its errors in `consoleErrors`. `browser` may be a context, to which the
 * options do not apply.
 */
export async function page(t, browser, url, options) {
  const context = (await browser.newContext?.(options)) ?? browser;
  context.setDefaultTimeout(TIMEOUT);
  const opened = await context.newPage();
  opened.consoleErrors = [];
  opened.on('console', (message) => {
    if (message.type() === 'error') opened.consoleErrors.push(message.text());
  });
  opened.on('pageerror', (error) => opened.consoleErrors.push(error.stack ?? error.message));
  await opened.goto(url);
  return opened;
}

/** Serves an empty page. Resolves to its origin. */
export async function origin(t) {
  const server = http.createServer((request, response) => {
    response.setHeader('content-type', 'text/html');
    response.end('<!doctype html><title>a page</title><link rel="icon" href="data:,">');
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  t.after(() => { server.close(); server.closeAllConnections(); });
  return `http://127.0.0.1:${server.address().port}`;
}

/** Opens a native EventSource in the page and records events and states in `window.seen`. */
export function listen(page, url, names) {
  return page.evaluate(({ url, names }) => {
    const source = new EventSource(url);
    window.source = source;
    window.seen = { events: [], system: [], errors: [] };
    for (const name of [
      ...names,
      'sse.connected',
      'sse.heartbeat',
      'sse.gap',
      'sse.busy',
      'sse.closing',
    ]) {
      source.addEventListener(name, ({ type, data, lastEventId }) => {
        (name.startsWith('sse.') ? window.seen.system : window.seen.events).push({
          type,
          data,
          id: lastEventId,
        });
      });
    }
    source.addEventListener('error', () => window.seen.errors.push(source.readyState));
  }, { url, names });
}

/** Resolves to what the page recorded: { events, system, errors, state }. */
export const seen = (page) =>
  page.evaluate(() => ({ ...window.seen, state: window.source.readyState }));

/** Waits until the page has recorded at least `least` events of a name. */
export const count = (page, name, least) =>
  page.waitForFunction(
    ([name, least]) =>
      [...window.seen.events, ...window.seen.system].filter(({ type }) => type === name).length >=
      least,
    [name, least],
  );
