import { address } from './address.js';
import { backoff } from './backoff.js';
import { START, step } from './machine.js';
import { poll } from './poll.js';
import { offline, presence } from './presence.js';
import { openSource } from './source.js';
import { newTicket } from './ticket.js';
/** @import { Engine, Raw, Settings, Sink } from './types.js' */
/** @import { Input } from './machine.js' */

/** The longest wait that is asked of a poll, in s. */
const POLL_WAIT = 25;
/** So many ids are kept of what was polled while SSE was tried; with more the try is given up. */
const POLLED = 10_000;
/** An answer of so many characters may be as large as the gateway makes them: there is more to be had at once. */
const LARGE = 2 ** 19;

/**
 * An own connection. Either SSE alone; or polls, and beside them now and then a try of SSE, which takes over once it is connected.
 *
 * The law: `cursor` is the id up to which the sink has had everything. Whatever is opened begins there, and only one thing at a time
 * moves it: polls until SSE is connected, and then SSE.
 * @param {Settings} settings
 * @param {Sink} sink
 * @param {string[]} types event names
 * @returns {Engine}
 */
export function run(settings, sink, types) {
  const { EventSource = globalThis.EventSource, fetch = globalThis.fetch, watchdog, polling } = settings;
  const known = new Set(types);
  const limit = polling === 'only' ? 0 : Math.max(1, settings.failures);
  // The server side of a page is not the place for a stream: nothing is begun there, unless polls were asked for.
  const able = polling === 'only' || EventSource;

  let model = START;
  let cursor = settings.lastEventId;
  /** Ids that polls brought since the present source was opened: it will bring them again. @type {Set<string>} */
  const polled = new Set();
  /** The same of events that nobody listened to: someone may by the time the source brings them. @type {Set<string>} */
  const skipped = new Set();
  /** The id of what the source brought last: an event without one of its own repeats it. */
  let last = '';
  /** The present source; while its ticket is on its way, only that. @type {Partial<ReturnType<typeof openSource>> | undefined} */
  let source;
  /** The present polling; its controller ends it. @type {AbortController | undefined} */
  let poller;
  /** For the next source. @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  /** Ends the wait between two polls. */
  let hurry = () => {};
  let away = offline();

  /** @param {Input} what */
  const input = (what) => {
    const { state } = model;
    model = step(model, what, limit);
    if (model.state !== state) sink.state(model.state);
  };
  /** @param {unknown} error */
  const failed = (error) => sink.error(error instanceof Error ? error : new Error(String(error)));
  const wait = () => backoff(Math.max(0, model.tries - 1), settings);

  const fresh = () => newTicket(settings.ticket, watchdog);

  /** @param {string} id */
  const move = (id) => {
    if (!id || id === cursor) return;
    cursor = id;
    sink.at(id);
  };

  const forget = () => {
    polled.clear();
    skipped.clear();
  };
  /** @param {Raw} event */
  const take = (event) => {
    const { type, id } = event;
    if (polled.size && id !== last && !type.startsWith('sse.')) {
      if (skipped.has(id) || polled.delete(id)) {
        last = id;
        return;
      }
      forget(); // they all come first
    }
    if (type === 'sse.gap' && id !== last) forget(); // one with an id: from there the stream begins anew
    last = id;
    sink.event(event);
    // The ids of system events begin before what was polled.
    if (!polled.size) move(id);
  };

  const endSource = () => {
    clearTimeout(timer);
    source?.close?.();
    source = undefined;
  };
  const endPolls = () => {
    poller?.abort();
    poller = undefined;
    hurry();
  };
  // A listener may have closed the stream in the midst of anything below: then nothing begins any more.
  const over = () => model.state === 'closed';
  /** @param {number} ms */
  const openIn = (ms) => {
    endSource();
    if (over()) return;
    timer = setTimeout(open, ms);
  };

  /** After a source has failed: polls, where it is time for them, and a new source. @param {number} [ms] */
  const renew = (ms = wait()) => {
    pollIfDue();
    // Where polls fail as well it is the whole network: then the first way that works again is as good as the other.
    openIn(poller && !model.tries ? settings.probe : ms);
  };

  async function open() {
    endSource();
    if (over()) return;
    /** @type {typeof source} */
    const mine = source = {};
    let ticket;
    try {
      ticket = await fresh();
    } catch (error) {
      if (source !== mine) return;
      failed(error);
      if (!poller) input('hitch');
      return renew();
    }
    if (source !== mine) return;
    forget();
    last = '';
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
            input('connected');
          }
          if (source) take(event);
          // Two that have the same ticket would take the stream from each other for ever.
          if (event.type === 'sse.closing' && event.text.includes('"taken-over"')) {
            failed(new Error('the same ticket was used elsewhere; ticket() must give a new one each time'));
            input('lost');
            openIn(backoff(Infinity, settings));
          }
        },
        ended(final, answered) {
          if (poller) return renew();
          input(answered ? 'lost' : 'failed');
          if (final || model.failures >= limit) renew();
        },
        slow() {
          if (!polling) return;
          input('slow');
          pollIfDue();
        },
        silent(answered) {
          if (!poller) input(answered ? 'lost' : 'failed');
          renew(answered ? 0 : undefined);
        },
      });
    } catch (error) {
      failed(error);
      if (!poller) input('failed');
      renew();
    }
  }

  const pollIfDue = () => {
    if (polling && model.failures >= limit && !poller && !over()) startPolls();
  };
  async function startPolls() {
    const mine = poller = new AbortController();
    let ticket = '';
    let good = false;
    let seconds = 0;
    while (poller === mine) {
      const began = Date.now();
      let pause = 0;
      try {
        ticket ||= await fresh();
        if (poller !== mine) return;
        const answer = await poll(fetch, address(settings, '/poll', { ticket, lastEventId: cursor, wait: seconds }), watchdog, mine.signal, settings.withCredentials);
        if (poller !== mine) return;
        good = true;
        seconds = Math.min(POLL_WAIT, watchdog / 1800);
        input('answered');
        let size = 0;
        for (const event of answer.events) {
          size += event.text.length + 64; // and what is around it
          if (poller !== mine) return; // a handler has closed the stream
          if (source && event.id) (known.has(event.type) ? polled : skipped).add(event.id);
          sink.event(event);
          move(event.id);
        }
        if (poller !== mine) return;
        move(answer.at);
        if (polled.size + skipped.size > POLLED) {
          forget(); // else each further poll would put the next try off
          renew();
        }
        // A busy stream is asked once per `retry`, not as fast as it answers.
        if (size < LARGE) pause = began + settings.retry - Date.now();
      } catch (error) {
        if (poller !== mine) return;
        seconds = 0;
        const { status, wait: asked = 0 } = /** @type {any} */ (error);
        if (status === 401) ticket = '';
        if (status === 401 && good) {
          good = false; // its session is over, as sessions end
          continue;
        }
        failed(error);
        input('hitch');
        if (poller !== mine) return;
        pause = Math.max(asked, wait());
        if (!source && polling !== 'only') openIn(pause);
      }
      await new Promise((resolve) => {
        hurry = () => resolve(clearTimeout(later));
        const later = setTimeout(hurry, pause);
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
    if (away || !able) return;
    source?.look?.();
    if (!source && !poller) open();
    hurry();
  };
  const stopPresence = presence({
    away() {
      away = true;
      end();
      input('lost');
    },
    back() {
      if (!away || offline()) return;
      away = false;
      start();
    },
    seen,
  });

  if (!able) {
    stopPresence();
    queueMicrotask(() => failed(new Error('no EventSource here: give one (npm eventsource), or polling: \'only\'')));
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
      if (!able || over()) return;
      if (!poller) input('lost');
      endPolls(); // they have their own ticket, and shall have a new one too
      start();
    },
    close() {
      stopPresence();
      end();
      input('closed');
    },
  };
}
