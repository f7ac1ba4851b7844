// An application that uses clients/js without a bundler, and helpers to check what it received.
import assert from 'node:assert/strict';
import http from 'node:http';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { browser, unmodified } from './browser.js';
import { relevantGaps } from './listener.js';
import { freePort, TIMEOUT } from './processes.js';
import { Proxy } from './proxy.js';
import { Gateway, Redis, ticket } from './servers.js';

const PACKAGE = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../../clients/js');

const PAGE = `<!doctype html><title>application</title><link rel="icon" href="data:,">
<script type="module">
import { connect } from '/client/src/index.js';
// Opens the stream and records every callback. "nested": a handler ran inside another one.
window.start = (options, names = ['order-completed', 'notification']) => {
  const seen = window.seen = {
    events: [], states: [], gaps: [], errors: [], tickets: 0, late: 0, inside: 0, nested: false,
  };
  const stream = window.stream = connect({
    ticket: async () => {
      seen.tickets++;
      const response = await fetch('/ticket');
      if (!response.ok) throw new Error('no ticket: ' + response.status);
      return response.text();
    },
    ...options,
  });
  stream.onState((state) => seen.states.push(state));
  stream.onGap((gap) => seen.gaps.push(gap));
  stream.onError((error) => seen.errors.push(String(error)));
  for (const name of names) stream.on(name, (data, { id }) => {
    seen.nested ||= seen.inside++ > 0;
    seen.late += stream.lastEventId === id ? 1 : 0; // must still be the id of the previous event
    seen.events.push({ type: name, n: data.n, id });
    seen.inside--;
  });
};
window.ready = true;
</script>`;

/**
 * Serves the page, the client and tickets, as text and for `ticketUrl`. Properties of the result:
 * `refuse`: refuse tickets; `signedOut`: the user is signed out; `login`: then
 * ticket requests are redirected to this path, instead of a 401;
 * `missing`: a path that returns 404; `same`: return this ticket to every tab. `make` creates a
 * ticket.
 */
export async function startSite(
  t,
  { ttl = 30, make = (site) => site.same || ticket('42', { ttl: site.ttl }) } = {},
) {
  const site = {
    tickets: 0, ttl, refuse: false, signedOut: false, login: '', missing: '', same: '',
  };
  const server = http.createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://here');
    if (pathname === '/ticket') {
      site.tickets++;
      response
        .writeHead(site.refuse ? 500 : 200, { 'cache-control': 'no-store' })
        .end(site.refuse ? '' : await make(site));
    } else if (pathname === '/api/sse-ticket' && request.method === 'POST') {
      site.tickets++;
      const refusal = site.login ? 302 : 401;
      response
        .writeHead(site.signedOut ? refusal : 200, {
          'content-type': 'application/json',
          ...(site.signedOut && site.login && { location: site.login }),
        })
        .end(JSON.stringify(site.signedOut ? {} : { ticket: await make(site) }));
    } else if (/^\/client\/src\/[a-z/-]+\.js$/.test(pathname)) {
      const code =
        pathname === site.missing
          ? null
          : await readFile(path.join(PACKAGE, pathname.slice('/client/'.length))).catch(() => null);
      response.writeHead(code ? 200 : 404, { 'content-type': 'text/javascript' }).end(code ?? '');
    } else {
      response
        .writeHead(200, { 'content-type': 'text/html' })
        .end(pathname === '/' ? PAGE : '<!doctype html><title>another page</title>');
    }
  });
  await new Promise((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  site.url = `http://127.0.0.1:${server.address().port}`;
  return site;
}

/** Opens the page in a new tab, and a stream in it if there are options. */
export async function tab(context, site, options) {
  const opened = await context.newPage();
  opened.setDefaultTimeout(TIMEOUT);
  opened.consoleErrors = [];
  opened.on('pageerror', (error) => opened.consoleErrors.push(error.stack ?? error.message));
  await opened.goto(site.url);
  await opened.waitForFunction(() => window.ready);
  if (options) await opened.evaluate((options) => window.start(options), options);
  return opened;
}

/**
 * Resolves to everything the page recorded, and the current state, lastEventId and reconnectCount.
 */
export const seen = (page) => page.evaluate(() => {
  const { state, lastEventId, reconnectCount } = window.stream;
  return { ...window.seen, state, lastEventId, reconnectCount };
});

/** Polling also works in hidden tabs, which draw no frames. */
const POLLING = { polling: 25 };

/** Waits until the stream is in a state. */
export const stateIs = (page, expected) =>
  page.waitForFunction((expected) => window.stream.state === expected, expected, POLLING);

/** Waits until a state was reported after the first `from` state changes. */
export const stateSeen = (page, expected, from) =>
  page.waitForFunction(
    ([expected, from]) => window.seen.states.slice(from).includes(expected),
    [expected, from],
    POLLING,
  );

/** Waits until the event with number `n` was received. */
export const received = (page, n) =>
  page.waitForFunction((n) => window.seen.events.some((event) => event.n === n), n, POLLING);

/** Publishes numbered events durably, one after the other. */
export class Numbers {
  constructor(client, channel = 'user:42:events', type = 'order-completed') {
    Object.assign(this, { client, channel, type, n: 0 });
  }

  /** Publishes `count` events. Resolves to the number of the last one. */
  async publish(count = 1) {
    for (let i = 0; i < count; i++) {
      const n = ++this.n;
      await this.client.fcall('sse_publish', 1, this.channel, this.type, JSON.stringify({ n }));
    }
    return this.n;
  }

  /**
   * Publishes continuously, so that events occur at every point of the test. `stop()` resolves to
   * the last number.
   */
  flow(every = 5) {
    let running = true;
    const run = (async () => {
      while (running) {
        await this.publish();
        await new Promise((resolve) => setTimeout(resolve, every));
      }
    })();
    return { stop: async () => { running = false; await run; return this.n; } };
  }
}

/** 1, 2, … last */
export const upTo = (last) => Array.from({ length: last }, (_, i) => i + 1);

/** The client's delays, short enough for tests. */
export const DELAYS = { retry: 100, retryMax: 1000 };

/**
 * Starts Redis, a gateway behind a proxy, an application and a browser. `start()` restarts the
 * gateway. `plain`: a browser that hides and freezes tabs.
 */
export async function setUp(t, settings = {}, { ttl = 30, plain = false } = {}) {
  const redis = await Redis.start(t);
  const client = redis.client(t);
  const site = await startSite(t, { ttl });
  const port = await freePort();
  const start = () =>
    Gateway.start(t, {
      redis,
      port,
      settings: { 'cors.allowed_origins': site.url, 'server.heartbeat': '1s', ...settings },
    });
  const gateway = await start();
  const proxy = await Proxy.start(t, port);
  const context = plain ? await unmodified(t) : await (await browser(t)).newContext();
  return {
    redis,
    client,
    site,
    gateway,
    proxy,
    context,
    start,
    url: `${proxy.url}/events`,
    numbers: new Numbers(client),
  };
}

/**
 * Like `setUp`, with the page on a host that is neither https nor localhost: an insecure context.
 */
export async function insecure(t) {
  const setup = await setUp(t, { 'cors.allowed_origins': '*' });
  const insecureUrl = (url) => url.replace('127.0.0.1', 'app.test');
  const context = await (
    await browser(t, ['--host-resolver-rules=MAP app.test 127.0.0.1'])
  ).newContext();
  const site = { ...setup.site, url: insecureUrl(setup.site.url) };
  return { ...setup, context, site, url: insecureUrl(setup.url) };
}

/**
 * Checks that all events up to `last` arrived once and in order, handlers did not overlap, and
 * lastEventId followed them.
 */
export async function expectComplete(page, last, first = 1) {
  await received(page, last);
  const now = await seen(page);
  assert.deepEqual(now.events.map(({ n }) => n), upTo(last).slice(first - 1));
  assert.deepEqual(relevantGaps(now.gaps), []);
  assert.equal(now.nested, false);
  assert.equal(now.late, 0, 'lastEventId moved before the handlers were called');
  assert.deepEqual(page.consoleErrors, []);
  return now;
}
