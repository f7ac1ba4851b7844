// A page of an application that uses clients/js, as it is published: modules, no bundler. And what it is measured by.
import assert from 'node:assert/strict';
import http from 'node:http';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { browser, unchanged } from './browser.js';
import { told } from './listener.js';
import { freePort, GUARD } from './processes.js';
import { Proxy } from './proxy.js';
import { Gateway, Redis, ticket } from './stand.js';

const PACKAGE = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../../clients/js');

const PAGE = `<!doctype html><title>a front</title><link rel="icon" href="data:,">
<script type="module">
import { connect } from '/client/src/index.js';
// Opens the stream and notes all that the client says. 'began' and 'ended' of a handler show that none runs inside another.
window.start = (options, names = ['order-completed', 'notification']) => {
  const seen = window.seen = { events: [], states: [], gaps: [], errors: [], tickets: 0, late: 0, inside: 0, nested: false };
  const stream = window.stream = connect({
    ticket: async () => {
      seen.tickets++;
      const answer = await fetch('/ticket');
      if (!answer.ok) throw new Error('no ticket: ' + answer.status);
      return answer.text();
    },
    ...options,
  });
  stream.onState((state) => seen.states.push(state));
  stream.onGap((gap) => seen.gaps.push(gap));
  stream.onError((error) => seen.errors.push(String(error)));
  for (const name of names) stream.on(name, (data, { id }) => {
    seen.nested ||= seen.inside++ > 0;
    seen.late += stream.lastEventId === id ? 1 : 0; // it must stand at the event before
    seen.events.push({ type: name, n: data.n, id });
    seen.inside--;
  });
};
window.ready = true;
</script>`;

/**
 * A web server of an application: the page, the client, and tickets. `refuse`: no tickets; `missing`: a path
 * that it does not find; `same`: the ticket it gives to all. `make` makes a ticket.
 */
export async function front(t, { ttl = 30, make = (site) => site.same || ticket('42', { ttl: site.ttl }) } = {}) {
  const site = { tickets: 0, ttl, refuse: false, missing: '', same: '' };
  const server = http.createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://here');
    if (pathname === '/ticket') {
      site.tickets++;
      response.writeHead(site.refuse ? 500 : 200, { 'cache-control': 'no-store' }).end(site.refuse ? '' : await make(site));
    } else if (/^\/client\/src\/[a-z/-]+\.js$/.test(pathname)) {
      const code = pathname === site.missing ? null : await readFile(path.join(PACKAGE, pathname.slice('/client/'.length))).catch(() => null);
      response.writeHead(code ? 200 : 404, { 'content-type': 'text/javascript' }).end(code ?? '');
    } else {
      response.writeHead(200, { 'content-type': 'text/html' }).end(pathname === '/' ? PAGE : '<!doctype html><title>elsewhere</title>');
    }
  });
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  t.after(() => { server.close(); server.closeAllConnections(); });
  site.url = `http://127.0.0.1:${server.address().port}`;
  return site;
}

/** Opens the page in a new tab and the stream in it. */
export async function tab(context, site, options) {
  const opened = await context.newPage();
  opened.setDefaultTimeout(GUARD);
  opened.complaints = [];
  opened.on('pageerror', (error) => opened.complaints.push(error.stack ?? error.message));
  await opened.goto(site.url);
  await opened.waitForFunction(() => window.ready);
  if (options) await opened.evaluate((options) => window.start(options), options);
  return opened;
}

/** What the page has seen: { events, states, gaps, errors, tickets, … , state, lastEventId, reconnectCount }. */
export const seen = (page) => page.evaluate(() => {
  const { state, lastEventId, reconnectCount } = window.stream;
  return { ...window.seen, state, lastEventId, reconnectCount };
});

/** Also in hidden tabs, which paint nothing. */
const OFTEN = { polling: 25 };

/** Waits for the state: now, or since the `from`th change. */
export const state = (page, wanted) => page.waitForFunction((wanted) => window.stream.state === wanted, wanted, OFTEN);

/** Waits until the state was shown again after so many changes. */
export const shown = (page, wanted, from) => page.waitForFunction(([wanted, from]) => window.seen.states.slice(from).includes(wanted), [wanted, from], OFTEN);

/** Waits until the event with the number is there. */
export const got = (page, n) => page.waitForFunction((n) => window.seen.events.some((event) => event.n === n), n, OFTEN);

/** Numbered events, published durably one after the other. */
export class Numbers {
  constructor(client, channel = 'user:42:events', type = 'order-completed') {
    Object.assign(this, { client, channel, type, n: 0 });
  }

  /** Publishes so many more; the number of the last. */
  async publish(count = 1) {
    for (let i = 0; i < count; i++) {
      const n = ++this.n;
      await this.client.fcall('sse_publish', 1, this.channel, this.type, JSON.stringify({ n }));
    }
    return this.n;
  }

  /** Goes on publishing beside the test, so that whatever happens happens in the midst of events. `stop()` gives the last number. */
  flow(every = 5) {
    let on = true;
    const run = (async () => {
      while (on) {
        await this.publish();
        await new Promise((resolve) => setTimeout(resolve, every));
      }
    })();
    return { stop: async () => { on = false; await run; return this.n; } };
  }
}

/** 1, 2, … last */
export const upTo = (last) => Array.from({ length: last }, (_, i) => i + 1);

/** The client's waits, short enough for tests. */
export const WAITS = { retry: 100, retryMax: 1000 };

/** Redis, a gateway behind a proxy, an application, and a browser: all that a test here needs. `start()` starts the gateway anew.
 * `plain`: a browser that hides and freezes tabs. */
export async function stand(t, settings = {}, { ttl = 30, plain = false } = {}) {
  const redis = await Redis.start(t);
  const client = redis.client(t);
  const site = await front(t, { ttl });
  const port = await freePort();
  const start = () => Gateway.start(t, { redis, port, settings: { 'cors.allowed_origins': site.url, 'server.heartbeat': '1s', ...settings } });
  const gateway = await start();
  const proxy = await Proxy.start(t, port);
  const context = plain ? await unchanged(t) : await (await browser(t)).newContext();
  return { redis, client, site, gateway, proxy, context, start, url: `${proxy.url}/events`, numbers: new Numbers(client) };
}

/** A stand whose page is on a host that is neither https nor localhost: browsers call that insecure, and leave things out there. */
export async function insecure(t) {
  const all = await stand(t, { 'cors.allowed_origins': '*' });
  const elsewhere = (url) => url.replace('127.0.0.1', 'app.test');
  const context = await (await browser(t, ['--host-resolver-rules=MAP app.test 127.0.0.1'])).newContext();
  return { ...all, context, site: { ...all.site, url: elsewhere(all.site.url) }, url: elsewhere(all.url) };
}

/** All came, once and in order; handlers one after the other, and lastEventId behind them. */
export async function whole(page, last, first = 1) {
  await got(page, last);
  const now = await seen(page);
  assert.deepEqual(now.events.map(({ n }) => n), upTo(last).slice(first - 1));
  assert.deepEqual(told(now.gaps), []);
  assert.equal(now.nested, false);
  assert.equal(now.late, 0, 'lastEventId moved before the handlers were called');
  assert.deepEqual(page.complaints, []);
  return now;
}
