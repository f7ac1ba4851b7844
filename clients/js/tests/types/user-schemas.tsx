// Only compiled: events typed by schemas, which the backend and the page share.
import { z } from 'zod';
import {
  connect, type EventsOf, type PayloadsOf, type Schema,
} from '@sse-gateway/client';
import {
  SseProvider, useEvent, useEventSource, useResilientRealtime,
} from '@sse-gateway/client/react';

const schemas = {
  order: z.object({ id: z.number(), at: z.iso.datetime().transform((text) => new Date(text)) }),
  note: z.object({ text: z.string() }),
};
const options = { url: '/events', ticketUrl: '/api/sse-ticket', schemas };
type Events = EventsOf<typeof schemas>;
const payload: PayloadsOf<typeof schemas>['order'] = { id: 7, at: '2026-11-27T07:00:00Z' };
const own: Schema<string, number> = {
  '~standard': { version: 1, vendor: 'own', validate: (text) => ({ value: Number(text) }) },
};

const stream = connect({ ...options, share: 'user-42' });
stream.on('order', ({ id, at }) => void [id.toFixed(), at.getTime()]);
// @ts-expect-error unknown event
stream.on('orders', () => {});
connect({ url: '/events', schemas: { n: own } }).on('n', (n) => n.toFixed());
connect<{ order: { other: string } }>(options).on('order', ({ other }) => other.length);
// @ts-expect-error no schema
connect({ url: '/events', schemas: { order: {} } });

export function Page() {
  useEventSource({
    ...options,
    eventHandlers: {
      order: ({ at }) => void at.getTime(),
      // @ts-expect-error unknown property
      note: ({ id }) => void id,
    },
  });
  useResilientRealtime({ ...options, eventHandlers: { note: ({ text }) => void text.length } });
  useEvent<Events, 'order'>('order', ({ at }) => void at.getTime());
  return <SseProvider {...options}>{payload.id}</SseProvider>;
}
