import {
  bigint, integer, pgTable, serial, text, timestamp, unique, uuid,
} from 'drizzle-orm/pg-core';

const time = (name: string) => timestamp(name, { withTimezone: true }).notNull();
const createdAt = time('created_at').defaultNow();
const revenue = bigint({ mode: 'number' }).notNull();

export const users = pgTable('users', {
  id: text().primaryKey(),
  name: text().notNull(),
  /** Notifications up to this event are read. */
  readUpTo: integer('read_up_to').notNull().default(0),
});

const userId = text('user_id').notNull().references(() => users.id);

export const sessions = pgTable('sessions', {
  tokenHash: text('token_hash').primaryKey(),
  userId,
  expiresAt: time('expires_at'),
});

export const events = pgTable('events', {
  /** The number of the order: 1, 2, 3, … */
  id: integer().primaryKey(),
  /** The command that caused the event. The browser chose it, and may send it again. */
  command: uuid().notNull(),
  userId,
  text: text().notNull(),
  amount: integer().notNull(),
  createdAt,
}, (table) => [unique().on(table.userId, table.command)]);

/** One row: number and value of all orders. */
export const totals = pgTable('totals', { orders: integer().notNull(), revenue });

export const metricsSnapshots = pgTable('metrics_snapshots', {
  id: serial().primaryKey(),
  visitors: integer().notNull(),
  orders: integer().notNull(),
  revenue,
  createdAt,
});
