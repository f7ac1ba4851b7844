import { drizzle } from 'drizzle-orm/node-postgres';
import { Pool } from 'pg';

// `next dev` loads this module again after a change: keep the connections.
const kept = globalThis as { pool?: Pool };
kept.pool ??= new Pool({ connectionString: process.env.DATABASE_URL });

export const db = drizzle(kept.pool);
