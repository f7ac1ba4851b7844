// Creates the tables, and fills empty ones.
import { randomUUID } from 'node:crypto';
import { count } from 'drizzle-orm';
import { migrate } from 'drizzle-orm/node-postgres/migrator';
import { db } from '../lib/db';
import { SHOWN } from '../lib/events';
import { storeMetrics } from '../lib/metrics';
import { storeOrder } from '../lib/orders';
import { totals, users } from '../lib/schema';
import { visitors } from './visitors';

await migrate(db, { migrationsFolder: 'drizzle' });
const [{ found }] = await db.select({ found: count() }).from(users);
if (found === 0) {
  const [alice, bob] = [{ id: 'alice', name: 'Alice' }, { id: 'bob', name: 'Bob' }];
  await db.insert(users).values([alice, bob]);
  await db.insert(totals).values({ orders: 0, revenue: 0 });
  await storeOrder(alice, randomUUID(), 'desk');
  await storeOrder(bob, randomUUID(), 'lamp');
  for (let n = SHOWN; n > 0; n -= 1) {
    await storeMetrics(visitors(), new Date(Date.now() - n * 2000));
  }
}
await db.$client.end();
