import { address } from '../address.js';
import { backoff } from '../backoff.js';
import { startEngine } from '../engine.js';
import { poll } from '../poll.js';
import { presence } from '../presence.js';
import { isSystem } from '../system.js';
import { isSignedOut, newTicket } from '../ticket.js';
import { openHub, packed, unpacked } from './hub.js';
import { after } from './ids.js';
import { queueForLock, stealLock } from './lock.js';
/** @import { Engine, Raw, Settings, Sink, State } from '../types.js' */
/** @import { Message } from './hub.js' */

/** Maximum number of events to buffer during a catch-up; beyond it the catch-up starts over. */
const BUFFER_LIMIT = 5000;
/** Time, in ms, for a shared worker to start. */
const WORKER_TIMEOUT = 5000;

/** @param {number} ms @returns {Promise<void>} */
const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

/**
 * Joins the group that shares one connection between all tabs. The tab leaves when it is frozen,
 * and polls for what it missed when it returns.
 *
 * All members queue for one lock, and the one that has it runs the hub. The shared worker asks
 * first, so a tab only runs the hub if there is no worker or the worker has died. A hub that no
 * longer responds loses the lock. If locks are not available, each tab has its own connection.
 *
 * Invariant: `cursor` is the id up to which the sink has received everything. An event of the hub
 * is delivered only if its id is later, and only when the tab is not behind the hub.
 * @param {Settings} settings
 * @param {Sink} sink
 * @param {string[]} types event names
 * @returns {Engine}
 */
export function joinGroup(settings, sink, types) {
  const { ticket, fetch = globalThis.fetch, EventSource, share, ...rest } = settings;
  const { SharedWorker: Worker = globalThis.SharedWorker, ...serializable } = rest;
  /**
   * Settings that can be sent to a worker. The URL is absolute, since a worker has another base
   * URL.
   * @type {Settings}
   */
  const plain = JSON.parse(JSON.stringify({
    ...serializable, url: new URL(settings.url, document.baseURI).href,
  }));
  const name = `sse-gateway 3 ${share} ${plain.url} ${plain.topics}`;
  const me = String(Math.random());
  /** Event names of the whole group: a new hub must receive all of them from its first event on. */
  const groupTypes = new Set(types);
  let cursor = settings.lastEventId;
  /** Last known position of the hub. The next hub resumes there, so no member gets older events. */
  let hubCursor = cursor;
  let wasConnected = false;
  /** @type {State} */
  let hubState = 'connecting';
  /** Whether this tab reads its first position, before which it gets no events. */
  let isBeginning = false;
  /** Whether this tab was refused a ticket: it has left the group until `reconnect()`. */
  let isOut = false;
  /** One membership, from entering to leaving the group. @type {AbortController | undefined} */
  let membership;
  /** @type {BroadcastChannel | undefined} */
  let channel;
  /** @type {MessagePort | undefined} */
  let worker;
  /** Opens the hub in this tab. @type {(() => void) | undefined} */
  let open;
  /** Number of the current hub. */
  let hub = 0;
  /** Time of the hub's last message. */
  let lastHeard = 0;
  /** Events of the hub during a catch-up. @type {Raw[] | undefined} */
  let buffer;
  /**
   * Id that the catch-up must reach; later events are in the buffer. Undefined: the hub does not
   * know its position yet.
   * @type {string | undefined}
   */
  let target;
  /** This tab's own connection, if sharing is not possible. @type {Engine | undefined} */
  let ownEngine;

  /** @param {string} kind @param {any} [value] */
  const send = (kind, value) => channel?.postMessage({ kind, value, from: me });
  /** @param {boolean} fresh whether the hub must answer */
  const register = (fresh) => send('join', { types: [...groupTypes], fresh });
  /** @param {string[]} more */
  const addTypes = (more) => { for (const type of more) groupTypes.add(type); };

  /** @param {State} state */
  const setState = (state) => {
    hubState = state;
    if (state === 'signed-out') {
      wasConnected = false;
      return sink.state(state);
    }
    // What a page reads when the state is `open` must not be older than the position.
    const isUp = !isBeginning && (state === 'open' || state === 'polling');
    wasConnected ||= isUp;
    const down = wasConnected ? 'reconnecting' : 'connecting';
    sink.state(isUp ? state : down);
  };
  /** @param {string} id */
  const setCursor = (id) => {
    cursor = id;
    sink.at(id);
  };
  /** @param {string} id */
  const advance = (id) => { if (id && after(id, cursor)) setCursor(id); };
  /** @param {Raw} event */
  const deliver = (event) => {
    const { id, type, text } = event;
    if (id && !isSystem(type) && !after(id, cursor)) return;
    sink.event(event);
    // After this gap, ids may be smaller than before.
    if (type === 'sse.gap' && text.includes('"unknown-id"')) cursor = undefined;
    advance(id);
  };

  /** A request of this tab's own failed. @param {any} error */
  const failed = (error) => {
    sink.error(error);
    if (!isSignedOut(error)) return;
    isOut = true;
    leave();
    setState('signed-out');
  };

  /** Polls until this tab has everything the hub had at the start, then delivers the buffer. */
  async function catchUp() {
    const joined = /** @type {AbortController} */ (membership);
    const followed = hub;
    const current = () => joined === membership && followed === hub;
    /** @type {string | null | undefined} */
    let validTicket;
    buffer ??= [];
    target = hubCursor;
    const behind = () => !target || after(target, cursor);
    for (let tries = 0; behind();) {
      let pause = plain.retry;
      try {
        if (validTicket === undefined) validTicket = await newTicket(ticket, plain.watchdog);
        const query = { ticket: validTicket, lastEventId: cursor, wait: 0 };
        const { watchdog, withCredentials } = plain;
        const url = address(plain, '/poll', query);
        const { events, at } = await poll(fetch, url, watchdog, joined.signal, withCredentials);
        for (const event of events) if (current()) deliver(event);
        if (!current()) return;
        advance(at);
        if (events.length || !behind()) pause = 0;
        tries = 0;
      } catch (error) {
        if (!current()) return;
        validTicket = undefined;
        failed(error);
        pause = backoff(tries++, plain);
      }
      await sleep(pause);
      if (!current()) return;
    }
    const buffered = buffer;
    buffer = undefined;
    for (const event of buffered) if (current()) deliver(event);
  }

  /**
   * Polls for the retained values, since this tab begins later than the hub, and begins at their
   * position. It catches up with the hub, which may be ahead, before it delivers the hub's events:
   * otherwise an older value could follow a newer event.
   */
  async function fetchValues() {
    const joined = /** @type {AbortController} */ (membership);
    const followed = hub;
    const current = () => joined === membership && followed === hub;
    buffer = [];
    isBeginning = true;
    for (let tries = 0; cursor === undefined;) {
      try {
        const url = address(plain, '/poll', { ticket: await newTicket(ticket, plain.watchdog) });
        const { watchdog, withCredentials } = plain;
        const { events, at } = await poll(fetch, url, watchdog, joined.signal, withCredentials);
        for (const event of events) {
          const isValue = event.retained || event.type === 'sse.snapshot';
          if (isValue && current()) sink.event(event);
        }
        if (!current()) return;
        setCursor(at);
        isBeginning = false;
        setState(hubState);
      } catch (error) {
        if (!current()) return;
        failed(error);
        await sleep(backoff(tries++, plain));
        if (!current()) return;
      }
    }
    await catchUp();
  }

  /** Follows a hub that is new to this tab. @param {any} value @param {string} [to] */
  function follow(value, to) {
    addTypes(value.types);
    if (!to) register(false);
    if (navigator.locks) queue();
    queue = () => {};
    hubCursor = value.at;
    buffer = undefined;
    isBeginning = false;
    if (cursor === undefined) {
      // A hub without a position has not begun either, and forwards them.
      if (hubCursor && (value.kept || groupTypes.has('sse.snapshot'))) fetchValues();
      else advance(hubCursor ?? '');
    } else if (!hubCursor || after(hubCursor, cursor)) catchUp();
  }

  /** @param {{ data: Message }} message */
  function receive({ data: { kind, value, from, to } }) {
    if (to && to !== me) return;
    if (typeof from === 'number') {
      const isNew = kind === 'hello' && from > hub;
      if (isNew) hub = from;
      // A hub that was presumed dead may send messages before it learns of its successor.
      if (from !== hub) return;
      lastHeard = Date.now();
      if (isNew) follow(value, to);
    }
    if (kind === 'hello') setState(value.state);
    else if (kind === 'event') {
      hubCursor = value.id || hubCursor;
      target ??= hubCursor;
      if (!buffer) deliver(value);
      else if (buffer.push(value) > BUFFER_LIMIT) {
        buffer = [];
        target = hubCursor;
      }
    } else if (kind === 'at') {
      hubCursor = value;
      target ??= hubCursor;
      if (!buffer) advance(value);
    } else if (kind === 'state') setState(value);
    else if (kind === 'turn') {
      // All messages of the previous hub have been received by now.
      if (to) open?.();
      else worker?.postMessage({ name, from: me, begin: hubOptions() });
    } else if (kind === 'error') sink.error(unpacked(value));
    else if (kind === 'ask') {
      newTicket(ticket, plain.watchdog)
        .then((ticket) => ({ ticket }), (error) => ({ error: packed(error) }))
        .then((answer) => send('ticket', answer));
    } else if (kind === 'join') addTypes(value.types);
    else if (kind === 'types') addTypes(value);
  }

  const hubOptions = () => ({
    name, last: hub, settings: { ...plain, lastEventId: hubCursor }, types: [...groupTypes],
  });
  /**
   * This tab has the lock: opens the hub, after all messages of the previous one.
   * @param {() => void} release
   */
  const onLock = (release) => {
    const { signal } = /** @type {AbortController} */ (membership);
    open = () => {
      open = undefined;
      const options = hubOptions();
      const settingsHere = { ...settings, ...options.settings };
      const hubHere = openHub({ ...options, settings: settingsHere }, release, ticket);
      hubHere.add(me);
      signal.addEventListener('abort', hubHere.close);
    };
    const echo = new BroadcastChannel(name);
    echo.postMessage({ kind: 'turn', to: me });
    echo.close();
  };
  /** Without locks the tabs cannot agree on a hub: opens a connection of this tab's own. */
  const runAlone = () => {
    if (!membership || ownEngine) return;
    disconnect();
    ownEngine = startEngine({ ...settings, lastEventId: cursor }, {
      ...sink,
      at: setCursor,
      // Closed each time this tab leaves; only close() is final.
      state: (state) => { if (state !== 'closed') setState(state); },
    }, [...groupTypes]);
  };
  /** Queues for the lock, once per membership. */
  let queue = () => {};

  /** Monitors the hub, which may stop responding. */
  async function watch() {
    const joined = membership;
    lastHeard = Date.now();
    for (;;) {
      const now = Date.now();
      await sleep(Math.max(0, Math.min(lastHeard, now) + plain.watchdog - Date.now()));
      if (joined !== membership || ownEngine) return;
      if (Date.now() - lastHeard < plain.watchdog) continue;
      // An idle hub answers this, even in a hidden tab: timers may be slow there, messages are not.
      const before = lastHeard;
      register(true);
      await sleep(plain.heartbeat);
      if (joined !== membership || ownEngine) return;
      if (lastHeard !== before) continue;
      setState('connecting');
      const { signal } = /** @type {AbortController} */ (joined);
      await stealLock(name, signal, onLock, runAlone, plain.heartbeat);
    }
  }

  function enter() {
    if (membership) return;
    const joined = membership = new AbortController();
    channel = new BroadcastChannel(name);
    channel.onmessage = receive;
    queue = () => {
      queue = () => {};
      queueForLock(name, joined.signal, onLock, runAlone);
    };
    register(true);
    watch();
    const fallBack = () => { if (joined === membership) queue(); };
    // A worker cannot use an EventSource or fetch passed by the page.
    if (!Worker || EventSource || settings.fetch) return fallBack();
    try {
      // Bundlers recognise the worker by exactly this expression.
      const shared =
        new SharedWorker(new URL('./worker.js', import.meta.url), { type: 'module', name });
      shared.onerror = fallBack;
      worker = shared.port;
      worker.postMessage({ name, from: me });
      setTimeout(fallBack, WORKER_TIMEOUT);
    } catch {
      fallBack();
    }
  }
  function disconnect() {
    send('leave');
    channel?.close();
    channel = buffer = worker = open = undefined;
    isBeginning = false;
    hub = 0;
  }
  function leave() {
    if (!membership) return;
    const left = membership;
    membership = undefined;
    disconnect();
    left.abort();
    ownEngine?.close();
    ownEngine = undefined;
  }
  const stopPresence = presence({
    away() {
      if (isOut) return;
      leave();
      setState('connecting');
    },
    back: () => { if (!isOut) enter(); },
    seen: () => send('seen'),
  });
  // Also when the page is unloaded, so that the hub does not ask it for tickets or wait for it.
  addEventListener('pagehide', leave);
  enter();

  return {
    listen(more) {
      addTypes(more);
      send('types', more);
      ownEngine?.listen(more);
    },
    seen() {},
    reconnect() {
      if (isOut) {
        isOut = false;
        setState('connecting');
        return enter();
      }
      send('reconnect');
      ownEngine?.reconnect();
    },
    close() {
      stopPresence();
      removeEventListener('pagehide', leave);
      leave();
      sink.state('closed');
    },
  };
}
