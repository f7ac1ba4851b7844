import { desc, lt } from 'drizzle-orm';
import { db } from './db';
import { SHOWN, TOPIC, type Counters, type Point } from './events';
import { orderTotals } from './orders';
import { metricsSnapshots } from './schema';
import { sse } from './sse';

type Snapshot = typeof metricsSnapshots.$inferSelect;

const STORED = 1000;

const point = ({ id, createdAt, visitors }: Snapshot): Point => ({
  id, at: createdAt.toISOString(), visitors,
});

const counters = ({ visitors, orders, revenue }: Snapshot): Counters => ({
  visitors, orders, revenue,
});

/** Stores the current metrics, without publishing them. */
export async function storeMetrics(visitors: number, createdAt = new Date()) {
  const totals = await orderTotals();
  const [snapshot] = await db.insert(metricsSnapshots)
    .values({ visitors, createdAt, ...totals }).returning();
  return snapshot;
}

/** Only one process calls this, so the counters that are published last are the newest. */
export async function publishMetrics(visitors: number) {
  const snapshot = await storeMetrics(visitors);
  await db.delete(metricsSnapshots).where(lt(metricsSnapshots.id, snapshot.id - STORED));
  await sse.publishToBroadcast(TOPIC, 'counters', counters(snapshot), { keep: 'counters' });
  const keep = `point-${snapshot.id % SHOWN}`;
  await sse.publishToBroadcast(TOPIC, 'point', point(snapshot), { keep });
}

/** What the dashboard shows until its stream is open. */
export async function latestMetrics() {
  const rows = await db.select().from(metricsSnapshots)
    .orderBy(desc(metricsSnapshots.id)).limit(SHOWN);
  const none = { visitors: 0, orders: 0, revenue: 0 };
  return { counters: rows[0] ? counters(rows[0]) : none, points: rows.map(point).reverse() };
}
