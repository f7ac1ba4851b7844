// The types that users see. Nothing here runs.

/**
 * Where the stream stands.
 * - `connecting`: not connected yet, from the beginning.
 * - `open`: events come over SSE.
 * - `reconnecting`: was connected, and is on its way back (also while the browser is offline or the page is frozen).
 * - `polling`: SSE does not get through; events come over `/events/poll`, and SSE is tried again from time to time.
 * - `closed`: `close()` was called. Nothing follows.
 * @typedef {'connecting' | 'open' | 'reconnecting' | 'polling' | 'closed'} State
 */

/**
 * An event as it came.
 * @template [Data=any]
 * @typedef {object} StreamEvent
 * @property {string} type its name
 * @property {string} id its id: opaque, equal or not. Empty or that of the event before, if the event has none (`publishers.bare = relay`)
 * @property {Data} data the JSON value; where the text is no JSON, the text
 * @property {string} text the text as it came
 */

/**
 * `sse.gap`: events may be missing. Load the state again from the backend.
 * @typedef {object} Gap
 * @property {'expired' | 'trimmed' | 'reset' | 'unrecorded' | 'unknown-id'} reason why (docs/reference/events.md of the gateway)
 * @property {string[]} channels what is concerned; empty: unknown, all may be
 * @property {string} from the id from which on
 */

/**
 * Called with each event: its data, and the whole event. What it throws is reported and stops nothing.
 * @template [Data=any]
 * @typedef {(data: Data, event: StreamEvent<Data>) => void} Handler
 */

/** Ends what began: a registration. Calling it again does nothing. @typedef {() => void} Off */

/**
 * What a native EventSource is, as far as it is needed here; npm `eventsource` has it as well.
 * @typedef {object} Source
 * @property {number} readyState
 * @property {(type: string, listener: (event: any) => void) => void} addEventListener
 * @property {() => void} close
 */

/**
 * All waits are in milliseconds.
 * @typedef {object} ConnectOptions
 * @property {string} url the gateway's `/events`, such as `https://events.example.com/events`; polls go to the same URL with `/poll` at the end of its path
 * @property {() => string | Promise<string>} ticket called for every new ticket; gets one from your backend. A new one each time: two
 *   connections with the same ticket take it from each other. If it fails it is called again, later and later
 * @property {readonly string[]} [topics] narrows the ticket's topics to these exact names; `[]`: only the user's own events. Absent: all that the ticket allows
 * @property {boolean} [withCredentials] whether cookies go along to another origin: for gateways with `tickets.session_cookie`. Default: false
 * @property {string} [lastEventId] where to go on, such as an id that your backend gave with the state it rendered. Absent: from now
 * @property {readonly string[]} [types] event names to receive although nobody has called `on` for them yet
 * @property {string | false} [share] one connection for all tabs of this origin with the same name here (and the same url and topics). All of
 *   a group get the events of whoever's ticket was used, so the name must hold the user's id: `user-${id}`. Default false
 * @property {boolean | 'only'} [polling] whether to poll where SSE does not get through; `'only'`: nothing but polls. Default true
 * @property {number} [heartbeat] the gateway's `server.heartbeat`. A first answer that takes longer starts polling beside it. Default 15,000
 * @property {number} [watchdog] a stream that is silent for this long is dead; also the longest wait for a first answer, a ticket, a poll. Default 3 heartbeats
 * @property {number} [retry] first wait before a new try; doubles with each failure. Default 1,000
 * @property {number} [retryMax] longest such wait. Default 30,000
 * @property {number} [failures] so many tries without an answer in a row start polling. Default 3
 * @property {number} [probe] while polling, SSE is tried each so often. Default 60,000
 * @property {(new (url: string, init?: { withCredentials?: boolean }) => Source) | null} [EventSource] for Node: npm `eventsource`. Default: the global one
 * @property {(url: string, init?: any) => Promise<any>} [fetch] for polls. Default: the global one
 * @property {null} [SharedWorker] for `share`; null: no worker, a tab holds the connection for the others. Default: the global one
 */

/**
 * @template {Record<string, any>} Events
 * @typedef {object} Members
 * @property {On<Events>} on calls the handler for every event of the name, once and in order. `*`: all but the gateway's own (`sse.…`), of all
 *   names that are known by then. A name that is first given here is received from now on
 * @property {(listener: (state: State) => void) => Off} onState called at each change, not at once
 * @property {(listener: (gap: Gap) => void) => Off} onGap events may be missing: load the state again
 * @property {(listener: (error: Error) => void) => Off} onError for logs: a ticket that could not be got, a poll that was refused …; the
 *   stream goes on trying. Without a listener errors go to `console.warn`
 * @property {() => void} reconnect tries at once, with a new ticket
 * @property {() => void} close ends the stream for good
 * @property {State} state where it stands
 * @property {string | undefined} lastEventId the id up to which all handlers have been called; undefined until there is one
 * @property {number} reconnectCount how often it was connected again after it was lost
 */

/**
 * A stream of events that goes on until `close()`.
 * @template {Record<string, any>} [Events=Record<string, any>]
 * @typedef {Readonly<Members<Events>>} Stream
 */

/**
 * The gateway's own events, which can be listened to as well. After `sse.busy` the stream comes back as late as it was told to.
 * @typedef {{
 *   'sse.connected': { connectionId: string, user: string, topics: string[], resumed: boolean },
 *   'sse.heartbeat': { timestamp: number },
 *   'sse.gap': Gap,
 *   'sse.busy': { reason: string },
 *   'sse.closing': { reason: string },
 * }} SystemEvents
 */

/**
 * @template {Record<string, any>} Events
 * @typedef {{
 *   (type: '*', handler: Handler<any>): Off;
 *   <Type extends keyof SystemEvents>(type: Type, handler: Handler<SystemEvents[Type]>): Off;
 *   <Type extends keyof Events & string>(type: Type, handler: Handler<Events[Type]>): Off;
 * }} On
 */

/**
 * An event on its way to the handlers.
 * @typedef {object} Raw
 * @property {string} type
 * @property {string} id
 * @property {string} text
 */

/**
 * Who is told what comes: the stream in this page, or the hub that tells other tabs.
 * @typedef {object} Sink
 * @property {(event: Raw) => void} event an event, the gateway's own included; its handlers have been called when this returns
 * @property {(id: string) => void} at the stream stands at this id
 * @property {(state: State) => void} state the state has changed
 * @property {(error: Error) => void} error something failed
 */

/**
 * What moves events into a sink: an own connection, or a share in one.
 * @typedef {object} Engine
 * @property {(types: string[]) => void} listen receive these event names too
 * @property {() => void} seen someone looks at the page: try now what would wait
 * @property {() => void} reconnect
 * @property {() => void} close
 */

/**
 * The options with all defaults filled in.
 * @typedef {ConnectOptions & Required<Pick<ConnectOptions, 'polling' | 'heartbeat' | 'watchdog' | 'retry' | 'retryMax' | 'failures' | 'probe'>>} Settings
 */

export {};
