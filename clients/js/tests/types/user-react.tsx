// Only compiled, against the published .d.ts of the hooks.
import {
  ConnectionStatus,
  SseDevtools,
  SseProvider,
  useEvent,
  useEventSource,
  useFrameBatch,
  useGap,
  useHybrid,
  useLatest,
  usePolling,
  usePresence,
  useResilientRealtime,
  useSse,
  type EventHandlers,
  type EventSourceOptions,
  type Mode,
  type Status,
} from '@sse-gateway/client/react';

type Order = { id: number };
const options: EventSourceOptions = {
  url: '/events',
  ticket: async () => 'jwt',
  share: 'user-42',
  topics: ['news'] as const,
};

export function Page({ mode }: { mode: Mode }) {
  const add = useFrameBatch((orders: Order[]) => void orders.length);
  const presence = usePresence({ initial: ['1'] });
  const online: ReadonlySet<string> = presence.online;
  void online;
  const { status, lastEventId, reconnectCount, reconnect, close } = useEventSource({
    ...options,
    eventHandlers: { ...presence.eventHandlers, order: (order: Order) => add(order) },
  });
  const other = useResilientRealtime({
    ...options,
    mode,
    enabled: false,
    onGap: ({ reason }) => void reason,
    onError: (error) => void error.message,
  });
  const transport: 'sse' | 'polling' = other.mode;
  const state: Status = other.status;
  const id: string | undefined = lastEventId;
  void [transport, state, id, reconnectCount + 1];
  return (
    <button onClick={reconnect} onBlur={close}>
      <ConnectionStatus status={status} label="Orders" texts={{ open: 'Verbunden' }} />
    </button>
  );
}

// @ts-expect-error unknown mode
useResilientRealtime({ ...options, mode: 'websocket' });
// @ts-expect-error replaced by `mode`
useResilientRealtime({ ...options, polling: 'only' });
// @ts-expect-error ids are strings
usePresence({ initial: [1] });
void <ConnectionStatus />;
// @ts-expect-error url is required
useEventSource({ ticket: () => 'jwt' });
useEventSource({ url: '/events', withCredentials: true });

// Without a declaration in Register: any name, any data, or as the type parameters say.
type Events = { order: Order; note: { text: string } };
type Price = { symbol: string; price: number };

export function Untyped() {
  useEvent('anything', (data, { id, retained }) => void [data.whatever, id.length, retained]);
  useEvent('sse.connected', ({ user }) => void [user]);
  useEvent('*', (data, { type }) => void [data, type]);
  useEvent<Events, 'order'>('order', (order) => {
    const id: number = order.id;
    // @ts-expect-error unknown property
    void [id, order.text];
  });
  useEvent<Events>('note', ({ text }: { text: string }) => void text.length);
  const show = (order: Order) => void order.id;
  useEvent<Events>('order', show);
  // @ts-expect-error the handler of another event
  useEvent<Events>('note', show);
  // @ts-expect-error unknown event
  useEvent<Events>('orders', () => {});
  // @ts-expect-error unknown event
  useEvent<Events, 'orders'>('orders', () => {});
  useGap(({ reason, channels }) => void [reason, channels.length]);

  const price: Price | undefined = useLatest<Price>('broadcast:prices', 'btc');
  const prices: ReadonlyMap<string, Price> = useLatest<Price>('broadcast:prices');
  // @ts-expect-error may be undefined
  useLatest<Price>('broadcast:prices', 'btc').price;
  // @ts-expect-error read-only
  prices.clear();
  const orders = usePolling({
    key: 'orders',
    fetcher: async ({ signal }): Promise<Order[]> => (await fetch('/api', { signal })).json(),
    interval: 5000,
    pauseWhenHidden: false,
  });
  const first: Order | undefined = orders.data?.[0];
  const refetched: Promise<void> = orders.refetch();
  usePolling<number>({ fetcher: async () => 7 }).data?.toFixed();
  // @ts-expect-error another type
  usePolling<number>({ fetcher: async () => '7' });
  const list = useHybrid({
    load: async ({ signal }): Promise<Order[]> => (await fetch('/api', { signal })).json(),
    events: {
      order: (all, order: Order) => [...all, order],
      'sse.online': (all, { user }) => all.filter(({ id }) => String(id) !== user),
    },
    command: async (order: Order, { id }) => [id, order.id] as const,
    optimistic: (all, order, { id }) => (id ? [...all, order] : all),
    isResult: ({ data }, { id, input }) => data.id === input.id || data.id === id,
  });
  const all: Order[] | undefined = list.data;
  const sent: Promise<readonly [string, number]> = list.send({ id: 7 });
  const waiting: Order | undefined = list.pending[0]?.input;
  // @ts-expect-error another type
  list.send({ id: '7' });
  const bell = useHybrid({
    load: async () => ['a'],
    events: { note: (texts, { text }) => [text, ...texts] },
  });
  const texts: string[] = bell.data ?? [];
  useHybrid({
    load: async () => ['a'],
    // @ts-expect-error another type
    events: { note: () => 7 },
  });
  void [all, sent, waiting, texts];
  // @ts-expect-error a fetcher is required
  usePolling({ interval: 5000 });
  void [first, refetched];
  const { status, reconnect } = useSse();
  if (status === 'signed-out') reconnect();

  const { eventHandlers } = usePresence();
  useEventSource<Events>({
    url: '/events',
    ticketUrl: '/api/sse-ticket',
    onOpen: () => {},
    onMessage: (event) => {
      if (event.type === 'order') void event.data.id.toFixed();
      // @ts-expect-error of the other event
      if (event.type === 'order') void event.data.text;
    },
    eventHandlers: {
      ...eventHandlers,
      order: ({ id }) => void id.toFixed(),
      'sse.gap': ({ reason }) => void reason.length,
    },
  });
  // @ts-expect-error unknown event
  useEventSource<Events>({ url: '/events', eventHandlers: { orders: () => {} } });
  const handlers: EventHandlers<Events> = { note: ({ text }) => void text.length };
  useResilientRealtime<Events>({ url: '/events', eventHandlers: handlers });
  const team: ReadonlySet<'a' | 'b'> = usePresence<'a' | 'b'>({ initial: ['a'] }).online;
  return (
    <SseProvider<Events>
      url="/events"
      ticketUrl="/api/sse-ticket"
      retained={{ 'broadcast:prices': { events: ['price'], key: ({ symbol }) => symbol } }}
      onMessage={({ type }) => void (type === 'note')}
    >
      {price?.price} {team.size}
      <SseDevtools initialIsOpen position="left" limit={100} />
    </SseProvider>
  );
}
// @ts-expect-error url is required
void <SseProvider ticketUrl="/api/sse-ticket" />;
