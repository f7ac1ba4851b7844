// Compiled against the shipped .d.ts, never run: what a user of TypeScript writes, and what the compiler must refuse.
import { connect, type Gap, type State, type Stream, type StreamEvent } from 'sse-gateway-client';

type Events = { 'order-completed': { orderId: number }; notification: { text: string } };

const stream: Stream<Events> = connect<Events>({ url: '/events', ticket: async () => 'jwt', topics: ['news'], share: 'user-42' });

const off: () => void = stream.on('order-completed', (data, event) => {
  const id: number = data.orderId;
  const same: StreamEvent<{ orderId: number }> = event;
  const place: string = event.id;
  // @ts-expect-error an order has no text
  data.text;
  void [id, same, place];
});
off();
stream.on('*', (data, { type, text }) => void [data, type, text]);
// @ts-expect-error no such event
stream.on('order-complete', () => {});

stream.on('sse.connected', ({ connectionId, resumed }, { id }) => {
  const told: [string, boolean, string] = [connectionId, resumed, id];
  void told;
});
stream.on('sse.closing', ({ reason }) => reason.length);
// @ts-expect-error the gateway has no such event
stream.on('sse.opened', () => {});

const state: State = stream.state;
stream.onState((now) => {
  if (now === 'polling') return;
  // @ts-expect-error no such state
  if (now === 'connected') return;
});
stream.onGap((gap: Gap) => void [gap.reason, gap.channels, gap.from]);
stream.onError((error) => error.message);
const id: string | undefined = stream.lastEventId;
// @ts-expect-error is read only
stream.lastEventId = 'x';

const untyped = connect({ url: '/events', ticket: () => 'jwt', polling: 'only', EventSource: null, SharedWorker: null });
untyped.on('anything', (data) => data.whatever);
connect({ url: '/events', ticket: () => 'jwt', EventSource, fetch, lastEventId: id ?? '' });
connect({ url: '/events', ticket: () => 'jwt', topics: ['news'] as const, types: Object.freeze(['order']), share: false });
// @ts-expect-error a group has a name, which holds the user
connect({ url: '/events', ticket: () => 'jwt', share: true });
// @ts-expect-error a ticket is needed
connect({ url: '/events' });
// @ts-expect-error no such option
connect({ url: '/events', ticket: () => 'jwt', heartbeats: 1 });

void [state, untyped];
