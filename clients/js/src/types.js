// The public types. This module contains no code.

/**
 * State of a stream.
 * - `connecting`: not connected yet.
 * - `open`: receiving events over SSE.
 * - `reconnecting`: was connected and is reconnecting; also while offline or while the page is
 *   frozen.
 * - `polling`: SSE is blocked; receiving events over `/events/poll` and retrying SSE at intervals.
 * - `signed-out`: the ticket endpoint responded with 401 or a redirect. The stream does not retry
 *   until `reconnect()` is called, for example after a login.
 * - `closed`: `close()` was called. This state is final.
 * @typedef {'connecting' | 'open' | 'reconnecting' | 'polling' | 'signed-out' | 'closed'} State
 */

/**
 * An event as passed to handlers.
 * @template [Data=any]
 * @typedef {object} StreamEvent
 * @property {string} type name of the event
 * @property {string} id opaque id; only compare it for equality. An event without an id
 *   (`publishers.plain = relay`) has an empty id or repeats that of the previous event
 * @property {Data} data the parsed JSON value, or the text if it is not JSON
 * @property {string} text the unparsed text
 * @property {boolean} retained whether it is the current value of a key, as sent after
 *   `sse.snapshot`, and not an event that was published just now
 */

/**
 * Data of `sse.snapshot`: the keys that have a retained value. The values follow as events.
 * @typedef {object} Snapshot
 * @property {string[]} covers channels, and patterns of channels, about which `channels` is
 *   complete
 * @property {Record<string, string[]>} channels current keys by channel
 */

/**
 * Data of `sse.gap`: events may be missing. Load the state again from your backend, unless it
 * consists of retained values, which follow.
 * @typedef {object} Gap
 * @property {'expired' | 'trimmed' | 'reset' | 'unrecorded' | 'unknown-id'} reason see
 *   docs/reference/events.md of the gateway
 * @property {string[]} channels affected channels; empty: unknown, possibly all
 * @property {string} from id after which events may be missing
 */

/**
 * Receives the data of an event and the event itself. An exception is reported and does not affect
 * other handlers or the stream.
 * @template [Data=any]
 * @typedef {(data: Data, event: StreamEvent<Data>) => void} Handler
 */

/** Removes a handler or listener. Further calls have no effect. @typedef {() => void} Off */

/**
 * The part of a native EventSource that the client uses. npm `eventsource` implements it.
 * @typedef {object} Source
 * @property {number} readyState 2: closed
 * @property {(type: string, listener: (event: any) => void) => void} addEventListener as in a
 *   native EventSource
 * @property {() => void} close closes the connection
 */

/**
 * Constructor of a `Source`.
 * @typedef {new (url: string, init?: { withCredentials?: boolean }) => Source} SourceConstructor
 */

/**
 * What is wrong with the data of an event.
 * @typedef {object} SchemaIssue
 * @property {string} message what is wrong
 * @property {readonly any[]} [path] keys, or objects with a `key`
 */

/**
 * A schema of zod, Valibot, ArkType or any other library that implements Standard Schema
 * (https://standardschema.dev). Only synchronous schemas are supported.
 * @template [Input=any]
 * @template [Output=any]
 * @typedef {{ readonly '~standard': {
 *   readonly version: 1,
 *   readonly vendor: string,
 *   readonly validate: (value: unknown) => SchemaResult<Output> | Promise<SchemaResult<Output>>,
 *   readonly types?: { readonly input: Input, readonly output: Output } | undefined,
 * } }} Schema
 */

/**
 * Result of a schema.
 * @template Output
 * @typedef {{ readonly value: Output, readonly issues?: undefined }
 *   | { readonly issues: readonly SchemaIssue[] }} SchemaResult
 */

/** Schemas by event name. @typedef {Record<string, Schema>} EventSchemas */

/**
 * Data by event name, as handlers get it.
 * @template {EventSchemas} Schemas
 * @typedef {{
 *   [Type in keyof Schemas]: NonNullable<Schemas[Type]['~standard']['types']>['output']
 * }} EventsOf
 */

/**
 * Payload by event name, as the backend publishes it.
 * @template {EventSchemas} Schemas
 * @typedef {{
 *   [Type in keyof Schemas]: NonNullable<Schemas[Type]['~standard']['types']>['input']
 * }} PayloadsOf
 */

/**
 * Options of `connect`. All durations are in milliseconds.
 * @typedef {object} ConnectOptions
 * @property {string} url URL of the gateway's `/events`, such as
 *   `https://events.example.com/events`. Polls use the same URL with `/poll` appended to the path
 * @property {() => string | null | Promise<string | null>} [ticket] called for every new ticket;
 *   fetch one from your backend. Return a new ticket each time: two connections with the same
 *   ticket keep closing each other. If it fails, it is called again with increasing delay; if it
 *   throws an error with `status` 401 (`TicketError`), the state becomes `signed-out`. Return
 *   null if the ticket is in a cookie (`tickets.cookie`), which the function may renew. Default: no
 *   ticket in the URL; for a cookie, or for topics that need none (`tickets.anonymous_topics`)
 * @property {string} [ticketUrl] in place of `ticket`: the URL of your backend that issues tickets.
 *   Each ticket is requested with `POST`, with cookies; the response is `{ "ticket": "…" }`, or 401
 *   or a redirect if the user is signed out
 * @property {readonly string[]} [topics] limits the ticket's topics to these: names, `prefix*` or
 *   `*`; `[]`: only the user's own events. Default: all topics of the ticket
 * @property {boolean} [withCredentials] sends cookies to another origin; for gateways with
 *   `tickets.cookie` or `tickets.session_cookie`. Default: false
 * @property {string} [lastEventId] resumes after this id, for example an id that your backend
 *   returned with the state. Default: start from now
 * @property {readonly string[]} [types] event names to receive before `on` has been called for them
 * @property {EventSchemas} [schemas] schemas by event name, such as those of zod: handlers get what
 *   they return. An event that does not match calls no handler; `onError` gets a `SchemaError`
 * @property {string | false} [share] shares one connection between all tabs of this origin that use
 *   the same name, url and topics. All tabs of a group receive the events of the user whose ticket
 *   opened the connection, so the name must contain the user's id: `user-${id}`. Default: false
 * @property {boolean | 'only'} [polling] whether to poll if SSE is blocked; `'only'`: never use
 *   SSE. Default: true
 * @property {number} [heartbeat] the gateway's `server.heartbeat`. If the first response takes
 *   longer, polling starts in parallel. Default: 15,000
 * @property {number} [watchdog] silence after which a stream counts as dead; also the timeout for a
 *   first response, a ticket and a poll. Default: 3 heartbeats
 * @property {number} [retry] delay after the first failure; doubles with each further failure,
 *   minus up to 30 % jitter. Default: 1,000
 * @property {number} [retryMax] maximum of this delay. Default: 30,000
 * @property {number} [failures] consecutive connection attempts without a response after which
 *   polling starts. Default: 3
 * @property {number} [probe] interval between SSE attempts while polling. Default: 60,000
 * @property {SourceConstructor | null} [EventSource] implementation for Node, such as npm
 *   `eventsource`. Default: the global one
 * @property {(url: string, init?: any) => Promise<any>} [fetch] used for polls and `ticketUrl`.
 *   Default: the global one
 * @property {null} [SharedWorker] for `share`; null: use a tab to own the connection, never a
 *   shared worker. Default: the global one
 */

/**
 * Methods and properties of a stream.
 * @template {Record<string, any>} Events
 * @typedef {object} Members
 * @property {On<Events>} on registers a handler, called for every event of this name, once and in
 *   order. `*` covers every name known at that time, except the gateway's own events (`sse.…`). A
 *   name that is new to the stream is received from now on
 * @property {(listener: (state: State) => void) => Off} onState registers a listener for state
 *   changes; it is not called with the current state
 * @property {(listener: (gap: Gap) => void) => Off} onGap registers a listener for gaps: events may
 *   be missing, so load the state again
 * @property {(listener: (snapshot: Snapshot) => void) => Off} onSnapshot registers a listener for
 *   the keys of retained values, called before these: when the stream begins, and after a gap.
 *   Discard the values of other keys
 * @property {(listener: (error: Error) => void) => Off} onError registers a listener for errors,
 *   such as a failed ticket request or a refused poll. The stream keeps retrying. Without a
 *   listener errors go to `console.warn`
 * @property {() => void} reconnect reconnects immediately, with a new ticket; also after
 *   `signed-out`
 * @property {() => void} close closes the stream permanently
 * @property {State} state current state
 * @property {string | undefined} lastEventId id up to which all handlers have been called;
 *   undefined before the first id
 * @property {number} reconnectCount number of times the connection was lost and re-established
 */

/**
 * A stream of events that reconnects until `close()` is called.
 * @template {Record<string, any>} [Events=Record<string, any>]
 * @typedef {Readonly<Members<Events>>} Stream
 */

/**
 * Data of `sse.online` and `sse.offline`: the first stream of a user has begun, or the last one has
 * ended. Only with a ticket that has the claim `presence`.
 * @typedef {object} Presence
 * @property {string} user id of the user
 */

/**
 * Data of the gateway's own events, by name. Handlers can be registered for them as well. After
 * `sse.busy` the stream reconnects after the delay that the gateway requested.
 * @typedef {{
 *   'sse.connected': {
 *     connectionId: string, user: string | null, topics: string[], resumed: boolean,
 *   },
 *   'sse.heartbeat': { timestamp: number },
 *   'sse.gap': Gap,
 *   'sse.snapshot': Snapshot,
 *   'sse.busy': { reason: string },
 *   'sse.closing': { reason: string },
 *   'sse.online': Presence,
 *   'sse.offline': Presence,
 * }} SystemEvents
 */

/**
 * Type of `Stream.on`.
 * @template {Record<string, any>} Events
 * @typedef {{
 *   (type: '*', handler: Handler<any>): Off;
 *   <Type extends keyof SystemEvents>(type: Type, handler: Handler<SystemEvents[Type]>): Off;
 *   <Type extends keyof Events & string>(type: Type, handler: Handler<Events[Type]>): Off;
 * }} On
 */

/**
 * Options of `history`.
 * @typedef {object} HistoryOptions
 * @property {string} url URL of the gateway's `/events`, as for `connect`
 * @property {ConnectOptions['ticket']} [ticket] as for `connect`; called once
 * @property {ConnectOptions['ticketUrl']} [ticketUrl] as for `connect`
 * @property {string} channel `user:<id>:events` of the ticket's own user, or `broadcast:<topic>` of
 *   a topic that the ticket allows
 * @property {string | number} [since] the oldest event to read: a duration such as `15m` or `1d`, a
 *   time (RFC 3339), or ms since 1970. Default: everything that is stored
 * @property {string} [after] reads only what follows this id
 * @property {string} [until] reads up to this id: the `lastEventId` of another channel's history,
 *   from which the stream will begin
 * @property {boolean} [withCredentials] as for `connect`
 * @property {(url: string, init?: any) => Promise<any>} [fetch] as for `connect`
 */

/**
 * Stored events of a channel.
 * @template [Data=any]
 * @typedef {object} History
 * @property {StreamEvent<Data>[]} events oldest first
 * @property {string} lastEventId for `connect`: the stream continues after these events
 */

/**
 * An event before its text is parsed.
 * @typedef {object} Raw
 * @property {string} type name of the event
 * @property {string} id its id, or that of the previous event
 * @property {string} text its data
 * @property {boolean} [retained] whether it is the current value of a key
 */

/**
 * Receives everything that an engine produces: the stream of this page, or the hub that forwards it
 * to other tabs.
 * @typedef {object} Sink
 * @property {(event: Raw) => void} event an event, including the gateway's own; its handlers have
 *   been called when this returns
 * @property {(id: string) => void} at the stream has reached this id
 * @property {(state: State) => void} state the state may have changed
 * @property {(error: Error) => void} error something failed
 */

/**
 * Delivers events to a sink, over its own connection or a shared one.
 * @typedef {object} Engine
 * @property {(types: string[]) => void} listen also receive these event names
 * @property {() => void} seen the page became visible: do not wait for the next attempt
 * @property {() => void} reconnect reconnects immediately, with a new ticket
 * @property {() => void} close ends the connection permanently
 */

/**
 * Options that have a default.
 * @typedef {'polling' | 'heartbeat' | 'watchdog' | 'retry' | 'retryMax' | 'failures' | 'probe'
 * } Defaulted
 */

/**
 * Options with all defaults applied.
 * @typedef {ConnectOptions & Required<Pick<ConnectOptions, Defaulted>>} Settings
 */

export {};
