import type { EventsOf } from '@sse-gateway/client';
import { z } from 'zod';

/** The topics of everybody's events. The history of notifications has no other events in it. */
export const TOPIC = 'dashboard';
export const NOTIFICATIONS = 'notifications';
export const TOPICS = [TOPIC, NOTIFICATIONS];
export const CHANNEL = `broadcast:${TOPIC}` as const;

/** Number of points and activities that the dashboard shows. */
export const SHOWN = 20;

const Counters = z.object({ visitors: z.number(), orders: z.number(), revenue: z.number() });
const Point = z.object({ id: z.number(), at: z.string(), visitors: z.number() });
const Activity = z.object({ id: z.number(), at: z.string(), text: z.string() });

export type Counters = z.infer<typeof Counters>;
export type Point = z.infer<typeof Point>;
export type Activity = z.infer<typeof Activity>;

/** All events: the server publishes them, the browser checks and handles them. */
export const schemas = {
  /** Retained under the key `counters`. */
  'counters': Counters,
  /** The last 20 are retained, and so are the activities. */
  'point': Point,
  'activity': Activity,
  /** On their own topic, and read from its history when the page is opened. */
  'notification': Activity,
  /** On the user's channel. Notifications up to this id are read, in all tabs, on all devices. */
  'notifications-read': z.object({ upTo: z.number() }),
};

export type Events = EventsOf<typeof schemas>;

declare module '@sse-gateway/client/react' {
  interface Register {
    events: Events;
    retained: { [CHANNEL]: Counters };
  }
}
