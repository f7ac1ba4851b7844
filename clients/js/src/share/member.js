import { address } from '../address.js';
import { backoff } from '../backoff.js';
import { run } from '../engine.js';
import { poll } from '../poll.js';
import { presence } from '../presence.js';
import { newTicket } from '../ticket.js';
import { openHub } from './hub.js';
/** @import { Engine, Raw, Settings, Sink } from '../types.js' */
/** @import { Message } from './hub.js' */

/** Ids of the last events, so that none comes twice when another hub goes on where not everyone stood. */
const RECENT = 5000;
/** Events that are kept while this tab catches up; with more it catches up again. */
const KEPT = 5000;
/** So long, in ms, a shared worker may take to begin. */
const WORKER = 5000;

/**
 * A share in one connection for all tabs. The tab leaves when it is frozen, and when it comes back it polls what it has missed.
 *
 * Everyone in the group waits for one lock; who has it runs the hub. The shared worker asks first, so it is a tab only where there is no
 * worker, or where it has died.
 * @param {Settings} settings
 * @param {Sink} sink
 * @param {string[]} types event names
 * @returns {Engine}
 */
export function join(settings, sink, types) {
  const { ticket, fetch = globalThis.fetch, EventSource, SharedWorker = globalThis.SharedWorker, share, ...rest } = settings;
  /** What can be sent to a worker, which has another base for relative URLs. @type {Settings} */
  const plain = JSON.parse(JSON.stringify({ ...rest, url: new URL(settings.url, document.baseURI).href }));
  const name = `sse-gateway 1 ${share} ${plain.url} ${plain.topics}`;
  const me = String(Math.random());
  const { locks } = navigator;
  /** The names of the whole group: a new hub must know them from its first event on. */
  const group = new Set(types);
  /** @type {Set<string>} */
  const recent = new Set();
  let cursor = settings.lastEventId;
  /** Where the hub stood when it was last heard of: there the next one begins, so that it tells nobody of what was before. */
  let stand = cursor;
  let was = false;
  /** All of one stay in the group; aborted at its end. @type {AbortController | undefined} */
  let stay;
  /** @type {BroadcastChannel} */
  let channel;
  /** @type {MessagePort | undefined} */
  let worker;
  /** Opens the hub in this tab. @type {(() => void) | undefined} */
  let open;
  /** The hub that was heard of last. */
  let hub = '';
  /** @type {boolean} whether what the hub says is handed on */
  let live = false;
  /** What it said while this tab catches up. @type {Raw[] | undefined} */
  let kept;
  /** @type {Engine | undefined} */
  let alone;

  /** @param {string} kind @param {any} [value] */
  const say = (kind, value) => channel.postMessage({ kind, value, from: me });
  /** @param {boolean} fresh whether an answer is wanted */
  const register = (fresh) => say('join', { types: [...group], fresh });

  /** @param {string} id */
  const move = (id) => {
    if (!id || id === cursor) return;
    cursor = id;
    sink.at(id);
  };
  /** @param {Raw} event */
  const take = (event) => {
    const { id, type } = event;
    if (id && !type.startsWith('sse.')) {
      if (recent.has(id)) return;
      recent.add(id);
      for (const oldest of recent) {
        if (recent.size <= RECENT) break;
        recent.delete(oldest);
      }
    }
    sink.event(event);
    move(id);
  };

  /** Polls until it has all that the hub had when this began; then come the events that the hub has told of meanwhile. */
  async function catchUp() {
    const mine = /** @type {AbortController} */ (stay);
    const known = hub;
    const current = () => mine === stay && known === hub;
    let good = '';
    live = false;
    kept = [];
    for (let tries = 0; current();) {
      try {
        good ||= await newTicket(ticket, plain.watchdog);
        const before = /** @type {Raw[] | undefined} */ (kept);
        const { events, at } = await poll(fetch, address(plain, '/poll', { ticket: good, lastEventId: cursor, wait: 0 }), plain.watchdog, mine.signal, plain.withCredentials);
        for (const event of events) if (current()) take(event);
        if (!current()) return;
        move(at);
        if (!events.length && before === kept) break;
        tries = 0;
      } catch (error) {
        if (!current()) return;
        good = '';
        sink.error(/** @type {Error} */ (error));
        await new Promise((resolve) => { setTimeout(resolve, backoff(tries++, plain)); });
      }
    }
    if (!current()) return;
    live = true;
    const late = kept;
    kept = undefined;
    for (const event of late) if (current()) take(event);
  }

  /** @param {{ data: Message }} message */
  function hear({ data: { kind, value, to } }) {
    if (to && to !== me) return;
    if (kind === 'hello') {
      if (value.id === hub) return;
      hub = value.id;
      for (const type of value.types) group.add(type);
      if (!to) register(false);
      tell(value.state);
      if (locks) lead();
      lead = () => {};
      stand = value.at;
      if (cursor === undefined && stand) move(stand);
      if (cursor === stand) {
        live = true;
        kept = undefined;
      } else catchUp();
    } else if (kind === 'event') {
      stand = value.id || stand;
      if (live) take(value);
      else if (kept && kept.push(value) > KEPT) kept = [];
    } else if (kind === 'at') {
      stand = value;
      if (live) move(value);
    } else if (kind === 'state') tell(value);
    else if (kind === 'turn') {
      // All that the last hub has said has been heard by now.
      if (to) open?.();
      else worker?.postMessage({ name, from: me, begin: begin() });
    } else if (kind === 'error') sink.error(new Error(value));
    else if (kind === 'ask') {
      newTicket(ticket, plain.watchdog).then((ticket) => ({ ticket }), (error) => ({ error: String(error) }))
        .then((answer) => { if (stay) say('ticket', answer); });
    } else if (kind === 'join') for (const type of value.types) group.add(type);
    else if (kind === 'types') for (const type of value) group.add(type);
  }
  /** @param {import('../types.js').State} state */
  const tell = (state) => {
    was ||= state !== 'connecting';
    sink.state(was && state === 'connecting' ? 'reconnecting' : state);
  };

  const begin = () => ({ name, settings: { ...plain, lastEventId: stand }, types: [...group] });
  /** Has this tab run the hub as soon as it is its turn. Only once a stay. */
  let lead = () => {};
  const queue = () => {
    lead = () => {};
    const { signal } = /** @type {AbortController} */ (stay);
    if (!locks) {
      // No way to agree on one tab: each has its own connection.
      alone = run({ ...settings, lastEventId: cursor }, sink, [...group]);
      return;
    }
    locks.request(name, { signal }, () => new Promise((/** @type {(value?: undefined) => void} */ resolve) => {
      signal.addEventListener('abort', () => resolve());
      if (signal.aborted) return resolve();
      open = () => {
        open = undefined;
        const own = openHub({ ...begin(), settings: { ...settings, ...begin().settings } }, resolve, ticket);
        own.add(me);
        signal.addEventListener('abort', own.close);
      };
      const echo = new BroadcastChannel(name);
      echo.postMessage({ kind: 'turn', to: me });
      echo.close();
    })).catch(() => { /* this tab has left */ });
  };

  function enter() {
    if (stay) return;
    const mine = stay = new AbortController();
    channel = new BroadcastChannel(name);
    channel.onmessage = hear;
    lead = queue;
    register(true);
    const failed = () => { if (mine === stay) lead(); };
    // The worker has neither this page's EventSource nor its fetch, where the page has its own.
    if (!SharedWorker || EventSource || settings.fetch) return failed();
    try {
      const shared = new SharedWorker(new URL('./worker.js', import.meta.url), { type: 'module', name });
      shared.onerror = failed;
      worker = shared.port;
      worker.postMessage({ name, from: me });
      setTimeout(failed, WORKER);
    } catch {
      failed();
    }
  }
  function leave() {
    if (!stay) return;
    say('leave');
    const mine = stay;
    stay = undefined;
    mine.abort();
    channel.close();
    alone?.close();
    alone = kept = worker = open = undefined;
    live = false;
    hub = '';
  }
  const stopPresence = presence({
    away() {
      leave();
      tell('connecting');
    },
    back: enter,
    seen: () => { if (stay) say('seen'); },
  });
  // Also at the end of the page: the hub shall not ask it for tickets, nor wait for it.
  addEventListener('pagehide', leave);
  enter();

  return {
    listen(more) {
      for (const type of more) group.add(type);
      if (stay) say('types', more);
      alone?.listen(more);
    },
    seen() {},
    reconnect() {
      if (stay) say('reconnect');
      alone?.reconnect();
    },
    close() {
      stopPresence();
      removeEventListener('pagehide', leave);
      leave();
      sink.state('closed');
    },
  };
}
