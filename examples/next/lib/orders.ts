import { and, count, desc, eq, sum } from 'drizzle-orm';
import { db } from './db';
import { SHOWN, TOPIC, type Activity } from './events';
import { PRICES, type Product } from './products';
import { events, users } from './schema';
import { sse } from './sse';

const activity = (event: typeof events.$inferSelect): Activity => ({
  id: event.id, at: event.createdAt.toISOString(), text: event.text,
});

/**
 * Stores an order and publishes it. A command that is repeated stores nothing, and publishes only
 * what was not published the first time.
 */
export async function placeOrder(
  user: typeof users.$inferSelect, command: string, product: Product,
) {
  const text = `${user.name} ordered a ${product}`;
  await db.insert(events).values({ command, userId: user.id, text, amount: PRICES[product] })
    .onConflictDoNothing();
  const [event] = await db.select().from(events)
    .where(and(eq(events.userId, user.id), eq(events.command, command)));
  // After the transaction, so that clients that receive the event can load what it describes.
  const payload = activity(event);
  const key = `order-${event.id}`;
  const keep = `activity-${event.id % SHOWN}`;
  const everyone = await db.select({ id: users.id }).from(users);
  await Promise.all([
    sse.publishToBroadcast(TOPIC, 'activity', payload, { key, keep }),
    ...everyone.map(({ id }) => sse.publishToUser(id, 'notification', payload, { key })),
  ]);
}

export async function latestActivities() {
  const rows = await db.select().from(events).orderBy(desc(events.id)).limit(SHOWN);
  return rows.map(activity).reverse();
}

/** Number and value of all orders. */
export async function orderTotals() {
  const [totals] = await db.select({ orders: count(), revenue: sum(events.amount) }).from(events);
  return { orders: totals.orders, revenue: Number(totals.revenue ?? 0) };
}
