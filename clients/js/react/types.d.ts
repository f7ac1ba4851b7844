// The public types of the hooks. `npm run build` copies this file; all others are generated.
import type { ReactElement, ReactNode } from 'react';
import type {
  ConnectOptions, EventSchemas, EventsOf, Gap, Handler, Snapshot, State, StreamEvent, SystemEvents,
} from '../src/types.js';

/**
 * Types of your events, for all hooks at once. Declare them in any file of your application:
 *
 * @example
 * declare module '@sse-gateway/client/react' {
 *   interface Register {
 *     events: { order: Order; notification: { text: string } };
 *     retained: { 'broadcast:prices': Price };
 *   }
 * }
 */
export interface Register {}

/** Data by event name. */
type EventMap = Record<string, any>;

/** Data by event name, as declared in `Register`. Without a declaration: any name, any data. */
export type RegisteredEvents =
  Register extends { events: infer Events extends EventMap } ? Events : EventMap;

/** Data of retained values by channel, as declared in `Register`. */
export type RegisteredRetained =
  Register extends { retained: infer Values extends EventMap } ? Values : EventMap;

/**
 * State of a stream; also `closed` while the hook is not enabled. `signed-out`: the ticket endpoint
 * responded with 401; nothing is retried until `reconnect()`.
 */
export type Status = State;

/** Names of events for which handlers can be registered. */
export type EventName<Events extends EventMap> =
  (keyof Events & string) | keyof SystemEvents | '*';

/** Data of an event by its name. */
export type DataOf<Events extends EventMap, Type extends string> =
  Type extends keyof SystemEvents ? SystemEvents[Type]
    : Type extends '*' ? any
      : Type extends keyof Events ? Events[Type] : any;

/** Handlers by event name. */
export type EventHandlers<Events extends EventMap = RegisteredEvents> =
  string extends keyof Events ? Record<string, Handler>
    : { [Type in EventName<Events>]?: Handler<DataOf<Events, Type>> };

/** An event of any of the names. */
export type AnyEvent<Events extends EventMap = RegisteredEvents> =
  string extends keyof Events ? StreamEvent
    : { [Type in keyof Events & string]: StreamEvent<Events[Type]> & { type: Type } }[
      keyof Events & string];

/** Options of the hooks and of `SseProvider`, in addition to those of `connect`. */
export interface ReactOptions<Events extends EventMap> {
  /**
   * false: do not connect; true after false: resume where the stream stopped. Default: true
   */
  enabled?: boolean | undefined;
  /** The stream is connected, also after an interruption. */
  onOpen?: (() => void) | undefined;
  /**
   * Called for every event whose name is known: one that has a handler, is in `types`, or is
   * `message`; not for the gateway's own events.
   */
  onMessage?: ((event: AnyEvent<Events>) => void) | undefined;
  /** Events may be missing: load the state again from your backend. */
  onGap?: ((gap: Gap) => void) | undefined;
  /**
   * The keys that have a retained value; the values follow as events. Discard those of other keys.
   */
  onSnapshot?: ((snapshot: Snapshot) => void) | undefined;
  /** For logs. The stream keeps retrying, except after `signed-out`. */
  onError?: ((error: Error) => void) | undefined;
}

/** Options of `useEventSource`. */
export type EventSourceOptions<Events extends EventMap = RegisteredEvents> =
  ConnectOptions & ReactOptions<Events> & {
    /** Handlers by event name; may change between renders. */
    eventHandlers?: EventHandlers<Events> | undefined;
  };

/** Options of any of the hooks, without the names of events. */
export type AnyOptions = ConnectOptions & ReactOptions<any> & {
  /** Handlers by event name. */
  eventHandlers?: Record<string, Handler | undefined> | undefined;
};

/**
 * Transport selection: `sse` only, `polling` only, or `auto`: SSE, and polling if SSE is blocked.
 */
export type Mode = 'auto' | 'sse' | 'polling';

/** Options of `useResilientRealtime`. */
export type RealtimeOptions<Events extends EventMap = RegisteredEvents> =
  Omit<EventSourceOptions<Events>, 'polling'> & {
    /** Default: `auto`. */
    mode?: Mode | undefined;
  };

/** Result of `useEventSource` and `useSse`. */
export interface EventSourceResult {
  /** Current state. */
  status: Status;
  /** Number of times the connection was lost and re-established. */
  reconnectCount: number;
  /**
   * Current id. A component that reads it during rendering is re-rendered when it changes, at most
   * once per frame.
   */
  lastEventId: string | undefined;
  /** Reconnects immediately, with a new ticket; also after `close` and `signed-out`. */
  reconnect: () => void;
  /**
   * Closes the stream until `reconnect` is called or an option changes that opens a new connection.
   */
  close: () => void;
}

/** Result of `useResilientRealtime`. */
export interface RealtimeResult extends EventSourceResult {
  /** Current transport. */
  mode: 'sse' | 'polling';
}

/** Properties of `SseProvider`. */
export type ProviderProps<Events extends EventMap = RegisteredEvents> =
  ConnectOptions & ReactOptions<Events> & {
    /** Components that use the stream. */
    children?: ReactNode;
    /** Channels of retained values, for `useLatest`. */
    retained?: Record<string, Retained> | undefined;
  };

/**
 * How `useLatest` finds the values of a channel. Events do not name their channel and key, so these
 * must follow from the data.
 */
export interface Retained {
  /** Names of the events that the backend publishes with `KEEP`. */
  events: readonly string[];
  /** Names of the events that the backend publishes with `FORGET`. */
  forgets?: readonly string[] | undefined;
  /**
   * The key of an event, as in `KEEP <key>`. null or undefined: the event is not of this channel.
   */
  key: (data: any, event: StreamEvent) => string | number | null | undefined;
}

/** Options of `usePresence`. */
export interface PresenceOptions<User extends string = string> {
  /**
   * Ids of the users who are online, as your backend has read them from `GET /presence`; may arrive
   * later, and replaces the previous ones.
   */
  initial?: Iterable<User> | undefined;
}

/** Result of `usePresence`. */
export interface PresenceResult<User extends string = string> {
  /** Ids of the users who are online; a new set if it changes. */
  online: ReadonlySet<User>;
  /**
   * For the option `eventHandlers` of a hook with a stream, outside of an `SseProvider`; the same
   * object in every render.
   */
  eventHandlers: Record<'sse.online' | 'sse.offline' | 'sse.gap', Handler>;
}

/** Type of `SseProvider`. */
export type Provider =
  <Events extends EventMap = RegisteredEvents>(
    props: ProviderProps<NoInfer<Events>>,
  ) => ReactElement;

/** Type of `useEventSource`. */
export interface UseEventSource {
  <Schemas extends EventSchemas>(
    options: EventSourceOptions<EventsOf<Schemas>> & { schemas: Schemas },
  ): EventSourceResult;
  <Events extends EventMap = RegisteredEvents>(
    options: EventSourceOptions<NoInfer<Events>>,
  ): EventSourceResult;
}

/** Type of `useResilientRealtime`. */
export interface UseResilientRealtime {
  <Schemas extends EventSchemas>(
    options: RealtimeOptions<EventsOf<Schemas>> & { schemas: Schemas },
  ): RealtimeResult;
  <Events extends EventMap = RegisteredEvents>(
    options: RealtimeOptions<NoInfer<Events>>,
  ): RealtimeResult;
}

/** Handler of an event by its name; `never` if it is not known which of several. */
type HandlerOf<Events extends EventMap, Type extends string> =
  string extends Type ? Handler
    : [EventName<Events>] extends [Type] ? never : Handler<DataOf<Events, Type>>;

/** Type of `useEvent`. */
export interface UseEvent {
  /**
   * Calls the handler for every event of a name on the stream of the nearest `SseProvider`, once
   * and in order, while the component is mounted. The handler may change between renders. `*`
   * covers all names that are known; the gateway's own events (`sse.…`) have handlers, too.
   *
   * @example
   * useEvent('order', (order, { id, retained }) => show(order)); // typed by `Register`
   */
  <Events extends EventMap = RegisteredEvents,
    Type extends EventName<Events> = EventName<Events>>(
    type: Type,
    handler: HandlerOf<Events, Type>,
  ): void;
  /**
   * With `Events` as the only type parameter, the handler's parameter needs a type: TypeScript
   * cannot infer it then. `Register` makes both unnecessary.
   *
   * @example
   * useEvent<Events>('order', (order: Order) => show(order));
   */
  <Events extends EventMap = RegisteredEvents>(
    ...args: {
      [Type in EventName<NoInfer<Events>>]: [type: Type, handler: Handler<DataOf<Events, Type>>]
    }[EventName<NoInfer<Events>>]
  ): void;
}

/** Data of a channel: the type parameter, or as declared in `Register`. */
type LatestOf<Data, Channel extends string> =
  unknown extends Data
    ? Channel extends keyof RegisteredRetained ? RegisteredRetained[Channel] : any
    : Data;

/** Type of `useLatest`. */
export interface UseLatest {
  /**
   * The current value of a key that the backend publishes with `KEEP`: a price, a counter, a
   * status. It is there as soon as the stream begins, also in components that are mounted later.
   * The channel must be in `retained` of the `SseProvider`. The component re-renders when the value
   * changes, at most once per frame.
   *
   * @example
   * const btc = useLatest<Price>('broadcast:prices', 'btc'); // Price | undefined
   */
  <Data = unknown, Channel extends string = string>(
    channel: Channel, key: string,
  ): LatestOf<Data, Channel> | undefined;
  /**
   * All current values of a channel, by key.
   *
   * @example
   * const prices = useLatest<Price>('broadcast:prices'); // ReadonlyMap<string, Price>
   */
  <Data = unknown, Channel extends string = string>(
    channel: Channel,
  ): ReadonlyMap<string, LatestOf<Data, Channel>>;
}

/** Options of `usePolling`. */
export interface PollingOptions<Data> {
  /**
   * Hooks with the same key share requests and data: the fetcher of the newest one that is
   * enabled, and the shortest interval. Default: not shared.
   */
  key?: string | undefined;
  /**
   * Requests the data. Pass the signal to `fetch`: it is aborted when the last component is
   * unmounted, or after 45 s. Throw an error if the response is not ok.
   */
  fetcher: (context: { signal: AbortSignal }) => Promise<Data>;
  /** Pause after each request, in ms. `Infinity`: only `refetch`. Default: 10,000 */
  interval?: number | undefined;
  /** Maximum pause after failures, in ms; it doubles with each. Default: 60,000 */
  maxInterval?: number | undefined;
  /** Pauses while the page is hidden. It is refreshed when it becomes visible. Default: true */
  pauseWhenHidden?: boolean | undefined;
  /** false: no requests, except with `refetch`. Default: true */
  enabled?: boolean | undefined;
}

/** Result of `usePolling`. */
export interface PollingResult<Data> {
  /** The data of the last successful request. */
  data: Data | undefined;
  /** The error of the last request, if it failed. */
  error: any;
  /** Whether there is no result yet. */
  isLoading: boolean;
  /** Whether a request is running. */
  isFetching: boolean;
  /**
   * Requests the data now. If a request is running, another one follows it. Resolves when the
   * result is in `data` or `error`.
   */
  refetch: () => Promise<void>;
}

/** A command of `useHybrid` whose result has not arrived. */
export interface PendingCommand<Input> {
  /** Generated id, which the backend should return in the event, as `commandId`. */
  readonly id: string;
  /** What `send` was called with. */
  readonly input: Input;
}

/** Options of `useHybrid`. */
export interface HybridOptions<
  State, Input = void, Result = unknown, Events extends EventMap = RegisteredEvents,
> {
  /**
   * Requests the state from your backend. It is called when the component is mounted, when the
   * stream begins, after a gap, and with increasing delay after it failed. Throw an error if the
   * response is not ok. Pass the signal to `fetch`: it is aborted when the component is unmounted,
   * before another load, or after 45 s.
   */
  load: (context: { signal: AbortSignal }) => Promise<State>;
  /**
   * Returns the state after an event, by event name. Must not modify the state, and must give the
   * same result if an event is applied twice.
   */
  events?: {
    [Type in EventName<Events>]?:
    (state: NoInfer<State>, data: DataOf<Events, Type>, event: StreamEvent) => NoInfer<State>
  } | undefined;
  /** Sends a command to your backend. Throw an error if the response is not ok. */
  command?: ((input: Input, context: { id: string }) => Promise<Result>) | undefined;
  /** Returns the state that a command is expected to lead to. Default: the state as it is. */
  optimistic?: (
    (state: NoInfer<State>, input: NoInfer<Input>, context: { id: string }) => NoInfer<State>
  ) | undefined;
  /**
   * Whether an event is the result of a command. Default: its data has the `id` of the command as
   * `commandId`.
   */
  isResult?: (
    (event: StreamEvent, command: PendingCommand<NoInfer<Input>>) => boolean
  ) | undefined;
  /**
   * If the event of a command has not arrived for this long after the response, in ms, the state is
   * loaded again. Default: 10,000
   */
  confirmTimeout?: number | undefined;
}

/** Options of any `useHybrid`. */
export type AnyHybridOptions = HybridOptions<any, any, any, EventMap>;

/** Result of `useHybrid`. */
export interface HybridResult<State, Input = void, Result = unknown> {
  /** The state, with the expected results of pending commands; undefined until it is loaded. */
  data: State | undefined;
  /** The error of the last load, if it failed. It is repeated. */
  error: any;
  /** The error of the last command, if it failed. Its expected result is no longer shown. */
  commandError: any;
  /** Whether there is no state yet, and no error. */
  isLoading: boolean;
  /** Commands whose result has not arrived. */
  pending: readonly PendingCommand<Input>[];
  /** Whether there are such commands. */
  isPending: boolean;
  /** Sends a command. Resolves to the result of `command`, or rejects with its error. */
  send: (input: Input) => Promise<Result>;
  /** Loads the state again. */
  reload: () => Promise<void>;
}

/** Type of `useHybrid`. */
export type UseHybrid =
  <State, Input = void, Result = unknown, Events extends EventMap = RegisteredEvents>(
    options: HybridOptions<State, Input, Result, Events>,
  ) => HybridResult<State, Input, Result>;
