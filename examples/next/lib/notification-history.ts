import { history } from '@sse-gateway/client/history';
import { asUser } from './as-user';
import { NOTIFICATIONS, type Activity } from './events';
import { merge } from './items';

/** The latest notifications that the gateway has stored, oldest first. */
export async function loadNotifications(gateway: string, userId: string) {
  const { events } = await history<Activity>({
    url: `${gateway}/events`,
    ticketUrl: asUser('/api/sse-ticket', userId),
    channel: `broadcast:${NOTIFICATIONS}`,
  });
  // Once each: a command that is repeated after minutes publishes again.
  return merge([], events.map(({ data }) => data));
}
