import { address } from './address.js';
import { backoff } from './backoff.js';
import { START, step } from './machine.js';
import { poll } from './poll.js';
import { offline, presence } from './presence.js';
import { openSource } from './source.js';
import { isSystem } from './system.js';
import { isSignedOut, newTicket } from './ticket.js';
/** @import { Engine, Raw, Settings, Sink } from './types.js' */
/** @import { Input } from './machine.js' */

/** Maximum `wait` parameter of a poll, in seconds. */
const POLL_WAIT = 25;
/**
 * Maximum number of polled ids to remember during an SSE attempt; beyond it the attempt is ended.
 */
const POLLED = 10_000;
/**
 * Responses of at least this many characters may have reached the gateway's size limit, so more
 * events can follow immediately.
 */
const LARGE = 2 ** 19;

/**
 * Runs a connection of its own: either SSE only, or polls with SSE attempts in parallel. SSE takes
 * over as soon as it is connected.
 *
 * Invariant: `cursor` is the id up to which the sink has received everything. Every request resumes
 * there, and only one transport advances it at a time: polls until SSE is connected, then SSE.
 * @param {Settings} settings
 * @param {Sink} sink
 * @param {string[]} types event names
 * @returns {Engine}
 */
export function startEngine(settings, sink, types) {
  const { EventSource = globalThis.EventSource, fetch = globalThis.fetch } = settings;
  const { watchdog, polling } = settings;
  const known = new Set(types);
  const limit = polling === 'only' ? 0 : Math.max(1, settings.failures);
  // Without EventSource (server-side rendering) nothing starts, unless polling was requested.
  const supported = polling === 'only' || EventSource;

  let model = START;
  let cursor = settings.lastEventId;
  /** Polled ids that the current source will deliver again. @type {Set<string>} */
  const polled = new Set();
  /**
   * Like `polled`, for events that had no handler when polled. They may have one by the time the
   * source delivers them.
   * @type {Set<string>}
   */
  const skipped = new Set();
  /** Id of the source's previous event: an event without an id repeats it. */
  let lastSourceId = '';
  /** Whether retained values are arriving: from `sse.snapshot` to a heartbeat. */
  let inSnapshot = false;
  /**
   * The current source; empty while its ticket is being requested.
   * @type {Partial<ReturnType<typeof openSource>> | undefined}
   */
  let source;
  /** Aborts the current polling. @type {AbortController | undefined} */
  let poller;
  /** Opens the next source. @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  /** Ends the pause between two polls. */
  let endPause = () => {};
  let away = offline();

  /** @param {Input} input */
  const apply = (input) => {
    const { state } = model;
    model = step(model, input, limit);
    if (model.state !== state) sink.state(model.state);
  };
  /** @param {unknown} error */
  const report = (error) => sink.error(error instanceof Error ? error : new Error(String(error)));
  const delay = () => backoff(Math.max(0, model.tries - 1), settings);

  const requestTicket = () => newTicket(settings.ticket, watchdog);

  /** @param {string} id */
  const advance = (id) => {
    if (!id || id === cursor) return;
    cursor = id;
    sink.at(id);
  };

  const clearPolled = () => {
    polled.clear();
    skipped.clear();
  };
  /** @param {Raw} event */
  const deliver = (event) => {
    const { type, id } = event;
    if (polled.size && id !== lastSourceId && !isSystem(type)) {
      if (skipped.has(id) || polled.delete(id)) {
        lastSourceId = id;
        return;
      }
      clearPolled(); // polled events come first, so none can follow
    }
    // What was polled is newer than the values with which the source began.
    const isValue = inSnapshot && !isSystem(type) && id === lastSourceId;
    if (polled.size && (isValue || type === 'sse.snapshot')) {
      inSnapshot = true;
      return;
    }
    if (type === 'sse.snapshot') inSnapshot = true;
    // Ids end with `!` while values are missing.
    else if (type === 'sse.heartbeat') inSnapshot = id.endsWith('!');
    else if (type === 'sse.connected') inSnapshot = false;
    else if (isValue) event = { ...event, retained: true };
    // A gap with an id restarts the stream there.
    if (type === 'sse.gap' && id !== lastSourceId) clearPolled();
    lastSourceId = id;
    sink.event(event);
    // Until all polled events have been repeated, the ids of system events are behind the cursor.
    if (!polled.size) advance(id);
  };

  const endSource = () => {
    clearTimeout(timer);
    source?.close?.();
    source = undefined;
  };
  const endPolls = () => {
    poller?.abort();
    poller = undefined;
    endPause();
  };
  // Any callback below may close the stream; nothing may start afterwards, or while signed out.
  const closed = () => model.state === 'closed';
  const stopped = () => closed() || model.state === 'signed-out';
  /** The ticket endpoint refused the user: stops until `reconnect()`. */
  const signOut = () => {
    end();
    apply('signed-out');
  };
  /** @param {number} ms */
  const openAfter = (ms) => {
    endSource();
    if (stopped()) return;
    timer = setTimeout(open, ms);
  };

  /**
   * After a source has failed: starts polling if due, and schedules a new source.
   * @param {number} [ms]
   */
  const retrySource = (ms = delay()) => {
    pollIfDue();
    // If polls fail as well, the network is down: then try both transports at the same rate.
    openAfter(poller && !model.tries ? settings.probe : ms);
  };

  async function open() {
    endSource();
    if (stopped()) return;
    /** @type {typeof source} */
    const attempt = source = {};
    let ticket;
    try {
      ticket = await requestTicket();
    } catch (error) {
      if (source !== attempt) return;
      report(error);
      if (isSignedOut(error)) return signOut();
      if (!poller) apply('error');
      return retrySource();
    }
    if (source !== attempt) return;
    clearPolled();
    lastSourceId = '';
    try {
      source = openSource({
        EventSource: /** @type {NonNullable<typeof EventSource>} */ (EventSource),
        url: address(settings, '', { ticket, lastEventId: cursor }),
        types: [...known],
        heartbeat: settings.heartbeat,
        watchdog,
        withCredentials: settings.withCredentials,
      }, {
        event(event) {
          if (event.type === 'sse.connected') {
            endPolls();
            apply('connected');
          }
          if (source) deliver(event);
          // Two connections with the same ticket would keep closing each other.
          if (event.type === 'sse.closing' && event.text.includes('"taken-over"')) {
            report(new Error('the same ticket was used by another connection; '
              + 'ticket() must return a new one each time'));
            apply('lost');
            openAfter(backoff(Infinity, settings));
          }
        },
        ended(final, answered) {
          if (poller) return retrySource();
          apply(answered ? 'lost' : 'failed');
          if (final || model.failures >= limit) retrySource();
        },
        slow() {
          if (!polling) return;
          apply('slow');
          pollIfDue();
        },
        silent(answered) {
          if (!poller) apply(answered ? 'lost' : 'failed');
          retrySource(answered ? 0 : undefined);
        },
      });
    } catch (error) {
      report(error);
      if (!poller) apply('failed');
      retrySource();
    }
  }

  const pollIfDue = () => {
    if (polling && model.failures >= limit && !poller && !stopped()) startPolls();
  };
  async function startPolls() {
    const current = poller = new AbortController();
    /** @type {string | null | undefined} */
    let ticket;
    let ticketAccepted = false;
    let wait = 0;
    while (poller === current) {
      const began = Date.now();
      let pause = 0;
      try {
        if (ticket === undefined) ticket = await requestTicket();
        if (poller !== current) return;
        const url = address(settings, '/poll', { ticket, lastEventId: cursor, wait });
        const answer = await poll(fetch, url, watchdog, current.signal, settings.withCredentials);
        if (poller !== current) return;
        ticketAccepted = true;
        wait = Math.min(POLL_WAIT, watchdog / 1800);
        apply('answered');
        let size = 0;
        for (const event of answer.events) {
          size += event.text.length + 64; // plus the JSON around it
          if (poller !== current) return; // a handler closed the stream
          if (source && event.id) (known.has(event.type) ? polled : skipped).add(event.id);
          sink.event(event);
          advance(event.id);
        }
        if (poller !== current) return;
        advance(answer.at);
        if (polled.size + skipped.size > POLLED) {
          clearPolled(); // otherwise every further poll would postpone the next attempt
          retrySource();
        }
        // On a busy stream, poll once per `retry`, not as fast as the gateway responds.
        if (size < LARGE) pause = began + settings.retry - Date.now();
      } catch (error) {
        if (poller !== current) return;
        wait = 0;
        if (isSignedOut(error)) {
          report(error);
          return signOut();
        }
        const { status, retryAfter = 0 } = /** @type {any} */ (error);
        if (status === 401) ticket = undefined;
        if (status === 401 && ticketAccepted) {
          ticketAccepted = false; // the session ended, which is expected
          continue;
        }
        report(error);
        apply('error');
        if (poller !== current) return;
        pause = Math.max(retryAfter, delay());
        if (!source && polling !== 'only') openAfter(pause);
      }
      await new Promise((resolve) => {
        endPause = () => resolve(clearTimeout(pauseTimer));
        const pauseTimer = setTimeout(endPause, pause);
      });
    }
  }

  const start = () => {
    pollIfDue();
    if (limit) open();
  };
  const end = () => {
    endSource();
    endPolls();
  };
  const seen = () => {
    if (away || !supported) return;
    source?.check?.();
    if (!source && !poller) open();
    endPause();
  };
  const stopPresence = presence({
    away() {
      away = true;
      end();
      apply('lost');
    },
    back() {
      if (!away || offline()) return;
      away = false;
      start();
    },
    seen,
  });

  if (!supported) {
    stopPresence();
    queueMicrotask(() => report(new Error('EventSource is not available: '
      + 'pass one (npm eventsource), or set polling: \'only\'')));
  } else if (!away) start();

  return {
    listen(more) {
      for (const type of more) {
        known.add(type);
        source?.listen?.(type);
      }
    },
    seen,
    reconnect() {
      if (!supported || closed()) return;
      if (model.state === 'signed-out') apply('restarted');
      else if (!poller) apply('lost');
      endPolls(); // polls have a ticket of their own and need a new one too
      start();
    },
    close() {
      stopPresence();
      end();
      apply('closed');
    },
  };
}
