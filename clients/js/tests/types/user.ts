// Only compiled, against the published .d.ts: code that must compile, and errors that the compiler
// must report.
import { connect, type Gap, type State, type Stream, type StreamEvent } from '@sse-gateway/client';

import { history } from '@sse-gateway/client/history';

type Events = { 'order-completed': { orderId: number }; notification: { text: string } };

const stream: Stream<Events> = connect<Events>({
  url: '/events',
  ticket: async () => 'jwt',
  topics: ['news'],
  share: 'user-42',
});

const off: () => void = stream.on('order-completed', (data, event) => {
  const id: number = data.orderId;
  const same: StreamEvent<{ orderId: number }> = event;
  const opaqueId: string = event.id;
  const isValue: boolean = event.retained;
  // @ts-expect-error unknown property
  data.text;
  void [id, same, opaqueId, isValue];
});
off();
stream.on('*', (data, { type, text }) => void [data, type, text]);
// @ts-expect-error unknown event
stream.on('order-complete', () => {});

stream.on('sse.connected', ({ connectionId, resumed }, { id }) => {
  const values: [string, boolean, string] = [connectionId, resumed, id];
  void values;
});
stream.on('sse.connected', ({ user }) => {
  // @ts-expect-error an anonymous client has no user
  user.length;
});
stream.on('sse.closing', ({ reason }) => reason.length);
// @ts-expect-error unknown system event
stream.on('sse.opened', () => {});

const state: State = stream.state;
stream.onState((now) => {
  if (now === 'polling') return;
  // @ts-expect-error unknown state
  if (now === 'connected') return;
});
stream.onGap((gap: Gap) => void [gap.reason, gap.channels, gap.from]);
stream.onSnapshot(({ covers, channels }) => void [covers.length, channels['broadcast:a']?.length]);
stream.onError((error) => error.message);
const id: string | undefined = stream.lastEventId;
// @ts-expect-error read-only property
stream.lastEventId = 'x';

const untyped = connect({
  url: '/events',
  ticket: () => 'jwt',
  polling: 'only',
  EventSource: null,
  SharedWorker: null,
});
untyped.on('anything', (data) => data.whatever);
connect({ url: '/events', ticket: () => 'jwt', EventSource, fetch, lastEventId: id ?? '' });
connect({
  url: '/events',
  ticket: () => 'jwt',
  topics: ['news'] as const,
  types: Object.freeze(['order']),
  share: false,
});
// @ts-expect-error share must be a name
connect({ url: '/events', ticket: () => 'jwt', share: true });
connect({ url: '/events', withCredentials: true });
connect({ url: '/events', ticket: async () => null });
// @ts-expect-error url is required
connect({ ticket: () => 'jwt' });
// @ts-expect-error a ticket is requested anew for each connection
connect({ url: '/events', ticket: 'jwt' });
// @ts-expect-error unknown option
connect({ url: '/events', ticket: () => 'jwt', heartbeats: 1 });

history<{ text: string }>({ url: '/events', ticket: () => 'jwt', channel: 'broadcast:news' }).then(
  ({ events, lastEventId }) => {
    const texts: string[] = events.map(({ data }) => data.text);
    connect({ url: '/events', ticket: () => 'jwt', lastEventId, topics: ['team-*'] });
    void texts;
  },
);
// @ts-expect-error channel is required
history({ url: '/events', ticket: () => 'jwt', since: 0 });

void [state, untyped];
