import { and, desc, eq } from 'drizzle-orm';
import { db } from './db';
import { NOTIFICATIONS, SHOWN, TOPIC, type Activity } from './events';
import { PRICES, type Product } from './products';
import { events, totals } from './schema';
import { sse } from './sse';

type Customer = { id: string; name: string };

const activity = (event: typeof events.$inferSelect): Activity => ({
  id: event.id, at: event.createdAt.toISOString(), text: event.text,
});

/** Stores an order and its event. A command that is repeated returns the event of the first one. */
export function storeOrder({ id: userId, name }: Customer, command: string, product: Product) {
  return db.transaction(async (transaction) => {
    // The lock makes orders wait for each other, so that their ids have no gaps.
    const [before] = await transaction.select().from(totals).for('update');
    const [stored] = await transaction.select().from(events)
      .where(and(eq(events.userId, userId), eq(events.command, command)));
    if (stored) return stored;
    const [id, amount] = [before.orders + 1, PRICES[product]];
    await transaction.update(totals).set({ orders: id, revenue: before.revenue + amount });
    const text = `${name} ordered a ${product}`;
    const [event] = await transaction.insert(events)
      .values({ id, command, userId, text, amount }).returning();
    return event;
  });
}

/** Stores an order and publishes it. A repeated command publishes only what was not published. */
export async function placeOrder(user: Customer, command: string, product: Product) {
  const event = await storeOrder(user, command, product);
  // After the transaction, so that clients that receive the event can load what it describes.
  const payload = activity(event);
  const key = `order-${event.id}`;
  const keep = `activity-${event.id % SHOWN}`;
  await sse.publishToBroadcast(TOPIC, 'activity', payload, { key, keep });
  await sse.publishToBroadcast(NOTIFICATIONS, 'notification', payload, { key });
}

export async function latestActivities() {
  const rows = await db.select().from(events).orderBy(desc(events.id)).limit(SHOWN);
  return rows.map(activity).reverse();
}

/** Number and value of all orders. */
export async function orderTotals() {
  const [{ orders, revenue }] = await db.select().from(totals);
  return { orders, revenue };
}
