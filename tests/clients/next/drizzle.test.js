// The Drizzle schema of the outbox guide: its migration, and an insert in a transaction.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { Listener } from '../lib/listener.js';
import { folder, run } from '../lib/processes.js';
import { Gateway, Redis } from '../lib/servers.js';
import { NEXT, startDatabase } from './lib.js';

const GUIDE = path.resolve(NEXT, '../../docs/guides/postgres-outbox.md');

/** The only block of the guide in a language that contains a text. */
function block(language, text) {
  const blocks = [...readFileSync(GUIDE, 'utf8').matchAll(/^```(\w+)\n([^]*?)^```$/gm)];
  const found = blocks.filter(([, kind, code]) => kind === language && code.includes(text));
  assert.equal(found.length, 1, `one ${language} block with ${text}`);
  return found[0][2];
}

const CONFIG = `import { defineConfig } from 'drizzle-kit';
export default defineConfig({ dialect: 'postgresql', schema: './schema.ts', out: './out' });`;

// What an app has besides.
const PROGRAM = `import { eq } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/node-postgres';
import { integer, pgTable, text } from 'drizzle-orm/pg-core';
import { sseOutbox } from './schema';
const orders = pgTable('orders', { id: integer('id').primaryKey(), state: text('state') });
const db = drizzle(process.env.DATABASE_URL!);
`;

test('Drizzle schema of the outbox guide', async (t) => {
  const directory = folder(t, 'drizzle');
  const write = (name, text) => writeFileSync(path.join(directory, name), text);
  symlinkSync(path.join(NEXT, 'node_modules'), path.join(directory, 'node_modules'));
  write('package.json', '{ "type": "module" }');
  write('schema.ts', block('ts', 'pgTable('));
  write('drizzle.config.ts', CONFIG);
  write('program.ts', `${PROGRAM}${block('ts', 'insert(sseOutbox)')}await db.$client.end();\n`);
  const { database, url } = await startDatabase(t);
  const node = (script, ...args) => run(
    process.execPath,
    [path.join(NEXT, 'node_modules', script), ...args],
    { cwd: directory, env: { PATH: process.env.PATH, DATABASE_URL: url } },
  );

  await node('drizzle-kit/bin.cjs', 'generate');
  const out = path.join(directory, 'out');
  const [migration] = readdirSync(out).filter((name) => name.endsWith('.sql'));
  await database.query(readFileSync(path.join(out, migration), 'utf8'));
  const [, trigger] = block('sql', 'CREATE TABLE sse_outbox').split(/^(?=CREATE FUNCTION)/m);
  await database.query(trigger);
  await database.query("CREATE TABLE orders AS SELECT 7 AS id, 'open' AS state");

  const redis = await Redis.start(t);
  const settings = { 'sources.postgres.url': url };
  const gateway = await Gateway.start(t, { redis, settings });
  const listener = await Listener.open(t, gateway.events('42'), ['order-shipped']);
  await node('tsx/dist/cli.mjs', 'program.ts');
  const [{ data }] = await listener.got(1);
  assert.equal(data, '{"orderId":7}');
  const { rows } = await database.query('SELECT state FROM orders');
  assert.deepEqual(rows, [{ state: 'shipped' }]);
});
