import { integer, pgTable, serial, text, timestamp, unique, uuid } from 'drizzle-orm/pg-core';

const createdAt = timestamp('created_at', { withTimezone: true }).notNull().defaultNow();

export const users = pgTable('users', {
  id: text().primaryKey(),
  name: text().notNull(),
  /** Notifications up to this event are read. */
  readUpTo: integer('read_up_to').notNull().default(0),
});

const userId = text('user_id').notNull().references(() => users.id);

export const sessions = pgTable('sessions', { token: text().primaryKey(), userId, createdAt });

export const events = pgTable('events', {
  id: serial().primaryKey(),
  /** The command that caused the event. The browser chose it, and may send it again. */
  command: uuid().notNull(),
  userId,
  text: text().notNull(),
  amount: integer().notNull(),
  createdAt,
}, (table) => [unique().on(table.userId, table.command)]);

export const metricsSnapshots = pgTable('metrics_snapshots', {
  id: serial().primaryKey(),
  visitors: integer().notNull(),
  orders: integer().notNull(),
  revenue: integer().notNull(),
  createdAt,
});
