// Setup for the dashboard tests: backend, Redis, gateway and a page in Chromium.
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { browser, page } from '../lib/browser.js';
import { freePort, kill, printed, start } from '../lib/processes.js';
import { Gateway, Redis } from '../lib/servers.js';

const ROOT = path.resolve(import.meta.dirname, '../../..');
export const DASHBOARD = path.join(ROOT, 'examples/dashboard');

/** Fails if the built page is missing or outdated (`make test` builds it). */
function requireBuild() {
  const builtPage = path.join(DASHBOARD, 'dist/index.html');
  if (!existsSync(builtPage))
    throw new Error(
      'The dashboard is not built: run "npm ci && npm run build" in examples/dashboard.',
    );
  const sources = [
    'examples/dashboard/src',
    'examples/dashboard/shared',
    'clients/js/src',
    'clients/js/react',
  ]
    .flatMap((folder) =>
      readdirSync(path.join(ROOT, folder), { recursive: true, withFileTypes: true }),
    )
    .filter((entry) => /\.(js|jsx|css)$/.test(entry.name))
    .map((entry) => path.join(entry.parentPath, entry.name));
  const newer = sources.find((file) => statSync(file).mtimeMs > statSync(builtPage).mtimeMs);
  if (newer)
    throw new Error(
      `${newer} is newer than the built dashboard: run "npm run build" in examples/dashboard.`,
    );
}

/**
 * Starts everything and opens the page: { redis, client, gateway, url, tab, restart() }. `tick`:
 * interval between chart points, in ms; long by default, so that the charts do not change.
 * `before(tab)` runs before the page is loaded.
 */
export async function setUp(t, { tick = 60_000, look = {}, before = () => {} } = {}) {
  requireBuild();
  const [port, gatewayPort] = [await freePort(), await freePort()];
  const secret = randomBytes(32).toString('hex');
  const url = `http://127.0.0.1:${port}/`;
  const redis = await Redis.start(t);
  const settings = { 'tickets.secret': secret, 'cors.allowed_origins': url.slice(0, -1) };
  const startGateway = () => Gateway.start(t, { redis, port: gatewayPort, settings });
  const gateway = await startGateway();
  // First, because Chromium may start slowly, and the backend publishes from its start on.
  const tab = await page(t, await browser(t), 'about:blank', look);
  await before(tab);
  const backend = start(process.execPath, [path.join(DASHBOARD, 'backend/server.js')], {
    env: {
      PATH: process.env.PATH,
      PORT: `${port}`,
      GATEWAY_URL: gateway.url,
      REDIS_URL: redis.url,
      TICKET_SECRET: secret,
      TICK: `${tick}`,
    },
  });
  t.after(() => kill(backend));
  await printed(backend, ({ out }) => out.includes(url), 'the URL');

  await tab.goto(url);
  await live(tab);
  return { redis, client: redis.client(t), gateway, url, tab, restart: startGateway };
}

/** Waits until both panes are connected. */
export const live = (tab) =>
  tab.waitForFunction(
    () => document.querySelectorAll('.connection-status[data-state=open]').length === 2,
  );

export const pane = (tab, user) => tab.locator(`.pane[data-user=${user}]`);

/** Waits until a counter of a pane has the value. */
export const counter = (tab, user, metric, value) =>
  pane(tab, user)
    .locator(`[data-metric=${metric}] .value`, { hasText: new RegExp(`^${value}$`) })
    .waitFor();

export const value = (tab, user, metric) =>
  pane(tab, user).locator(`[data-metric=${metric}] .value`).textContent();

/** Waits until the bell shows the count; 0: no badge. */
export async function unread(tab, user, count) {
  await pane(tab, user)
    .getByRole('button', { name: new RegExp(`^Notifications of .*, ${count} unread$`) })
    .waitFor();
  const badge = await pane(tab, user).locator('.unread').allTextContents();
  return badge[0] ?? '';
}

/** Presses a publish button and waits until Redis has stored the event. */
export async function publish(tab, what, name) {
  await tab.getByRole('button', { name: `${what} to ${name}`, exact: true }).click();
  await tab.locator('.result', { hasText: `To ${name}: ` }).waitFor();
}
