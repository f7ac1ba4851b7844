import { drizzle } from 'drizzle-orm/node-postgres';
import { Pool } from 'pg';

// `next dev` loads this module again after a change: keep the connections.
const kept = globalThis as { pool?: Pool };
kept.pool ??= open();

function open() {
  const pool = new Pool({ connectionString: process.env.DATABASE_URL });
  // An idle connection has ended, for example because Postgres restarts: the pool opens a new one.
  pool.on('error', ({ message }) => console.error(`Lost a connection to Postgres: ${message}`));
  return pool;
}

export const db = drizzle(kept.pool);
