// Creates the tables, and fills empty ones.
import { randomUUID } from 'node:crypto';
import { count } from 'drizzle-orm';
import { migrate } from 'drizzle-orm/node-postgres/migrator';
import { db } from '../lib/db';
import { SHOWN } from '../lib/events';
import { storeMetrics } from '../lib/metrics';
import { events, users } from '../lib/schema';
import { visitors } from './visitors';

await migrate(db, { migrationsFolder: 'drizzle' });
const [{ found }] = await db.select({ found: count() }).from(users);
if (found === 0) {
  await db.insert(users).values([{ id: 'alice', name: 'Alice' }, { id: 'bob', name: 'Bob' }]);
  await db.insert(events).values([
    { command: randomUUID(), userId: 'alice', text: 'Alice ordered a desk', amount: 250 },
    { command: randomUUID(), userId: 'bob', text: 'Bob ordered a lamp', amount: 40 },
  ]);
  for (let n = SHOWN; n > 0; n -= 1) {
    await storeMetrics(visitors(), new Date(Date.now() - n * 2000));
  }
}
await db.$client.end();
