// Setup for the tests of examples/next: Redis, Postgres, a gateway and the built app.
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { startPostgres } from '../../../examples/next/tools/postgres.mjs';
import { browser } from '../lib/browser.js';
import { TIMEOUT, freePort, kill, printed, run, start } from '../lib/processes.js';
import { Gateway, Redis } from '../lib/servers.js';

export const NEXT = path.resolve(import.meta.dirname, '../../../examples/next');
const API_KEY = 'an API key for tests only, of 32 bytes';
const { Pool } = createRequire(path.join(NEXT, 'package.json'))('pg');
const script = (name) => path.join(NEXT, 'node_modules', name);

/** Starts a Postgres: { url, database }, a pool of connections to it. */
export async function startDatabase(t) {
  const { url, child } = await startPostgres();
  const database = new Pool({ connectionString: url });
  // Postgres may end before the pool has closed its idle connections.
  database.on('error', () => {});
  t.after(async () => {
    await database.end();
    await child.stop();
  });
  return { url, database };
}

/**
 * Starts everything except the worker: { client, query(sql), gateway, restart(), url,
 * endStreams(user), startWorker(), device(), tab() }. A device is a browser with its own cookies;
 * `tab(device, user)` opens the page in it.
 */
export async function setUp(t) {
  if (!existsSync(path.join(NEXT, '.next/BUILD_ID')))
    throw new Error('examples/next is not built: run "make examples/next/.next/BUILD_ID"');
  const redis = await Redis.start(t);
  const { database, url: databaseUrl } = await startDatabase(t);
  const [port, gatewayPort] = [await freePort(), await freePort()];
  const url = `http://127.0.0.1:${port}`;
  const secret = randomBytes(32).toString('hex');
  const sha256 = createHash('sha256').update(API_KEY).digest('hex');
  const settings = {
    'tickets.secret': secret,
    'cors.allowed_origins': url,
    'api_keys': JSON.stringify([{ sha256, scopes: ['admin'] }]),
  };
  const startGateway = () => Gateway.start(t, { redis, port: gatewayPort, settings });
  const gateway = await startGateway();
  const env = {
    PATH: process.env.PATH,
    DATABASE_URL: databaseUrl,
    REDIS_URL: redis.url,
    GATEWAY_URL: gateway.url,
    TICKET_SECRET: secret,
    NEXT_TELEMETRY_DISABLED: '1',
  };
  const options = { cwd: NEXT, env };
  const node = (...args) => start(process.execPath, args, options);
  await run(process.execPath, [script('tsx/dist/cli.mjs'), 'scripts/seed.ts'], options);
  const app = node(script('next/dist/bin/next'), 'start', '-H', '127.0.0.1', '-p', `${port}`);
  t.after(() => kill(app));
  await printed(app, ({ out }) => out.includes('Ready in'), 'that it is ready');

  const chromium = await browser(t);
  return {
    client: redis.client(t),
    query: async (sql) => (await database.query(sql)).rows,
    gateway,
    restart: startGateway,
    url,
    endStreams: (user) => fetch(`${gateway.admin}/connections?user=${user}`, {
      method: 'DELETE',
      headers: { authorization: `Bearer ${API_KEY}` },
    }),
    startWorker: () => {
      // Without tsx's own process, which would leave the worker behind if it is killed.
      const worker = node('--import', 'tsx', 'scripts/worker.ts');
      t.after(() => kill(worker));
    },
    device: async ({ toastsStay = true, ...look } = {}) => {
      const context = await chromium.newContext(look);
      context.setDefaultTimeout(TIMEOUT);
      if (toastsStay) await context.addInitScript(keepToasts);
      t.after(() => context.close());
      return context;
    },
    tab: (device, user) => openTab(device, url, user),
  };
}

/** Without a time limit for toasts, no test depends on the speed of the machine. */
function keepToasts() {
  const { setTimeout } = window;
  window.setTimeout = (callback, delay, ...args) =>
    delay === 8000 ? 0 : setTimeout(callback, delay, ...args);
}

/** Opens the page, and signs in if the device is not signed in. Waits for the stream. */
async function openTab(device, url, user) {
  const tab = await device.newPage();
  tab.consoleErrors = [];
  tab.on('console', (message) => {
    if (message.type() === 'error') tab.consoleErrors.push(message.text());
  });
  tab.on('pageerror', (error) => tab.consoleErrors.push(error.stack ?? error.message));
  await tab.goto(url);
  if (user) await tab.getByRole('button', { name: `Sign in as ${user}` }).click();
  await live(tab);
  return tab;
}

/** Waits until the stream is open. */
export const live = (tab) => tab.locator('.connection-status[data-state=open]').waitFor();

export const bell = (tab, unread) =>
  tab.getByRole('button', { name: `Notifications, ${unread} unread`, exact: true });

export const order = (tab, product) =>
  tab.getByRole('button', { name: `Order a ${product}` }).click();

/** The activities, newest first. */
export const activities = (tab) =>
  tab.getByRole('region', { name: 'Activity' }).getByRole('listitem');
