import { address } from '../address.js';
import { backoff } from '../backoff.js';
import { run } from '../engine.js';
import { poll } from '../poll.js';
import { presence } from '../presence.js';
import { newTicket } from '../ticket.js';
import { openHub } from './hub.js';
import { after } from './ids.js';
import { queue, steal } from './turn.js';
/** @import { Engine, Raw, Settings, Sink, State } from '../types.js' */
/** @import { Message } from './hub.js' */

/** Events that are kept while this tab catches up; with more it catches up again. */
const KEPT = 5000;
/** So long, in ms, a shared worker may take to begin. */
const WORKER = 5000;

/** @param {number} ms @returns {Promise<void>} */
const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/**
 * A share in one connection for all tabs. The tab leaves when it is frozen, and when it comes back it polls what it has missed.
 *
 * Everyone in the group waits for one lock; who has it runs the hub. The shared worker asks first, so it is a tab only where there is no
 * worker, or where it has died. A hub that does not answer any more loses the lock. Where there are no locks each tab is on its own.
 *
 * The law: `cursor` is the id up to which the sink has had everything. What the hub says is handed on only if it lies behind it, and only
 * once the tab is not behind the hub.
 * @param {Settings} settings
 * @param {Sink} sink
 * @param {string[]} types event names
 * @returns {Engine}
 */
export function join(settings, sink, types) {
  const { ticket, fetch = globalThis.fetch, EventSource, SharedWorker: wanted = globalThis.SharedWorker, share, ...rest } = settings;
  /** What can be sent to a worker, which has another base for relative URLs. @type {Settings} */
  const plain = JSON.parse(JSON.stringify({ ...rest, url: new URL(settings.url, document.baseURI).href }));
  const name = `sse-gateway 2 ${share} ${plain.url} ${plain.topics}`;
  const me = String(Math.random());
  /** The names of the whole group: a new hub must know them from its first event on. */
  const group = new Set(types);
  let cursor = settings.lastEventId;
  /** Where the hub stood when it was last heard of: there the next one begins, so that it tells nobody of what was before. */
  let stand = cursor;
  let was = false;
  /** All of one stay in the group; aborted at its end. @type {AbortController | undefined} */
  let stay;
  /** @type {BroadcastChannel | undefined} */
  let channel;
  /** @type {MessagePort | undefined} */
  let worker;
  /** Opens the hub in this tab. @type {(() => void) | undefined} */
  let open;
  /** The number of the hub that is heard, and when it was heard last. */
  let hub = 0;
  let heard = 0;
  /** What the hub says while this tab catches up. @type {Raw[] | undefined} */
  let kept;
  /** Up to where it must catch up: what comes later is kept. Undefined: not even the hub knows yet where it stands. @type {string | undefined} */
  let goal;
  /** @type {Engine | undefined} */
  let alone;

  /** @param {string} kind @param {any} [value] */
  const say = (kind, value) => channel?.postMessage({ kind, value, from: me });
  /** @param {boolean} fresh whether an answer is wanted */
  const register = (fresh) => say('join', { types: [...group], fresh });
  /** @param {string[]} more */
  const know = (more) => { for (const type of more) group.add(type); };

  /** @param {State} state */
  const tell = (state) => {
    was ||= state !== 'connecting';
    sink.state(was && state === 'connecting' ? 'reconnecting' : state);
  };
  /** @param {string} id */
  const put = (id) => {
    cursor = id;
    sink.at(id);
  };
  /** @param {string} id */
  const move = (id) => { if (id && after(id, cursor)) put(id); };
  /** @param {Raw} event */
  const take = (event) => {
    const { id, type, text } = event;
    if (id && !type.startsWith('sse.') && !after(id, cursor)) return;
    sink.event(event);
    // The order of ids may begin anew there.
    if (type === 'sse.gap' && /"(reset|unknown-id)"/.test(text)) cursor = undefined;
    move(id);
  };

  /** Polls until it has all that the hub had when this began; then come the events that the hub has told of meanwhile. */
  async function catchUp() {
    const mine = /** @type {AbortController} */ (stay);
    const known = hub;
    const current = () => mine === stay && known === hub;
    let good = '';
    kept = [];
    goal = stand;
    for (let tries = 0; ;) {
      let pause = plain.retry;
      try {
        good ||= await newTicket(ticket, plain.watchdog);
        const end = goal;
        const { events, at } = await poll(fetch, address(plain, '/poll', { ticket: good, lastEventId: cursor, wait: 0 }), plain.watchdog, mine.signal, plain.withCredentials);
        for (const event of events) if (current()) take(event);
        if (!current()) return;
        move(at);
        if (end && !after(end, cursor)) break;
        if (events.length) pause = 0;
        tries = 0;
      } catch (error) {
        if (!current()) return;
        good = '';
        sink.error(/** @type {Error} */ (error));
        pause = backoff(tries++, plain);
      }
      await sleep(pause);
      if (!current()) return;
    }
    const late = kept;
    kept = undefined;
    for (const event of late) if (current()) take(event);
  }

  /** A hub that was not heard of before. @param {any} value @param {string} [to] */
  function follow(value, to) {
    know(value.types);
    if (!to) register(false);
    if (navigator.locks) lead();
    lead = () => {};
    stand = value.at;
    kept = undefined;
    if (cursor === undefined) move(stand ?? '');
    else if (!stand || after(stand, cursor)) catchUp();
  }

  /** @param {{ data: Message }} message */
  function hear({ data: { kind, value, from, to } }) {
    if (to && to !== me) return;
    if (typeof from === 'number') {
      const other = kind === 'hello' && from > hub;
      if (other) hub = from;
      // One that was held for dead may wake up, and say something before it hears that there is another.
      if (from !== hub) return;
      heard = Date.now();
      if (other) follow(value, to);
    }
    if (kind === 'hello') tell(value.state);
    else if (kind === 'event') {
      stand = value.id || stand;
      goal ??= stand;
      if (!kept) take(value);
      else if (kept.push(value) > KEPT) {
        kept = [];
        goal = stand;
      }
    } else if (kind === 'at') {
      stand = value;
      goal ??= stand;
      if (!kept) move(value);
    } else if (kind === 'state') tell(value);
    else if (kind === 'turn') {
      // All that the last hub has said has been heard by now.
      if (to) open?.();
      else worker?.postMessage({ name, from: me, begin: begin() });
    } else if (kind === 'error') sink.error(new Error(value));
    else if (kind === 'ask') {
      newTicket(ticket, plain.watchdog).then((ticket) => ({ ticket }), (error) => ({ error: String(error) }))
        .then((answer) => say('ticket', answer));
    } else if (kind === 'join') know(value.types);
    else if (kind === 'types') know(value);
  }

  const begin = () => ({ name, last: hub, settings: { ...plain, lastEventId: stand }, types: [...group] });
  /** It is this tab's turn: opens the hub, after all that the last one has said. @param {() => void} over */
  const granted = (over) => {
    const { signal } = /** @type {AbortController} */ (stay);
    open = () => {
      open = undefined;
      const own = openHub({ ...begin(), settings: { ...settings, ...begin().settings } }, over, ticket);
      own.add(me);
      signal.addEventListener('abort', own.close);
    };
    const echo = new BroadcastChannel(name);
    echo.postMessage({ kind: 'turn', to: me });
    echo.close();
  };
  /** No way to agree on one tab: this one has its own connection, and hears of no hub. */
  const separate = () => {
    if (!stay || alone) return;
    disconnect();
    alone = run({ ...settings, lastEventId: cursor }, {
      ...sink,
      at: put,
      // Closed whenever this tab leaves; only close() is the end.
      state: (state) => { if (state !== 'closed') tell(state); },
    }, [...group]);
  };
  /** Has this tab run the hub as soon as it is its turn. Only once a stay. */
  let lead = () => {};

  /** Looks after the hub: it may hang, and then says nothing at all. */
  async function watch() {
    const mine = /** @type {AbortController} */ (stay);
    heard = Date.now();
    for (;;) {
      await sleep(Math.max(0, Math.min(heard, Date.now()) + plain.watchdog - Date.now()));
      if (mine !== stay || alone) return;
      if (Date.now() - heard < plain.watchdog) continue;
      // A quiet one answers to this: also in a hidden tab, where timers may be slow but messages are not.
      const before = heard;
      register(true);
      await sleep(plain.heartbeat);
      if (mine !== stay || alone) return;
      if (heard !== before) continue;
      tell('connecting');
      await steal(name, mine.signal, granted, separate, plain.heartbeat);
    }
  }

  function enter() {
    if (stay) return;
    const mine = stay = new AbortController();
    channel = new BroadcastChannel(name);
    channel.onmessage = hear;
    lead = () => {
      lead = () => {};
      queue(name, mine.signal, granted, separate);
    };
    register(true);
    watch();
    const failed = () => { if (mine === stay) lead(); };
    // The worker has neither this page's EventSource nor its fetch, where the page has its own.
    if (!wanted || EventSource || settings.fetch) return failed();
    try {
      // Bundlers find the worker by just these words.
      const shared = new SharedWorker(new URL('./worker.js', import.meta.url), { type: 'module', name });
      shared.onerror = failed;
      worker = shared.port;
      worker.postMessage({ name, from: me });
      setTimeout(failed, WORKER);
    } catch {
      failed();
    }
  }
  function disconnect() {
    say('leave');
    channel?.close();
    channel = kept = worker = open = undefined;
    hub = 0;
  }
  function leave() {
    if (!stay) return;
    const mine = stay;
    stay = undefined;
    disconnect();
    mine.abort();
    alone?.close();
    alone = undefined;
  }
  const stopPresence = presence({
    away() {
      leave();
      tell('connecting');
    },
    back: enter,
    seen: () => say('seen'),
  });
  // Also at the end of the page: the hub shall not ask it for tickets, nor wait for it.
  addEventListener('pagehide', leave);
  enter();

  return {
    listen(more) {
      know(more);
      say('types', more);
      alone?.listen(more);
    },
    seen() {},
    reconnect() {
      say('reconnect');
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
