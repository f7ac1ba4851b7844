import { history } from 'sse-gateway-client/history';
import type { Activity } from './events';
import { merge } from './items';

/** The latest notifications that the gateway has stored, oldest first. */
export async function loadNotifications(gateway: string, userId: string) {
  const { events } = await history<Activity>({
    url: `${gateway}/events`,
    ticketUrl: '/api/sse-ticket',
    channel: `user:${userId}:events`,
  });
  const found = events.filter(({ type }) => type === 'notification').map(({ data }) => data);
  // Once each: a command that is repeated after minutes publishes again.
  return merge([], found);
}
