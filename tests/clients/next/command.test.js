// The start command of examples/next: what it starts, its error messages, and that it leaves
// nothing behind.
import assert from 'node:assert/strict';
import { chmodSync, readdirSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { browser, page } from '../lib/browser.js';
import {
  children, folder, freePort, isRunning, kill, printed, start, until, withTimeout,
} from '../lib/processes.js';
import { BINARY } from '../lib/servers.js';
import { NEXT, bell, live, order } from './lib.js';

const ENV = { PATH: process.env.PATH, HOME: process.env.HOME, SSE_GATEWAY_BIN: BINARY };

function begin(t, args, env = ENV) {
  const child = start(process.execPath, [path.join(NEXT, 'start.mjs'), ...args], { env });
  t.after(() => kill(child));
  return child;
}

/** An environment in which the command writes to a folder that Postgres' user can read, too. */
function environment(t) {
  const TMPDIR = folder(t, 'tmp');
  chmodSync(TMPDIR, 0o755);
  return { ...ENV, TMPDIR };
}

const descendants = (pid) => children(pid).flatMap((child) => [child, ...descendants(child)]);
const dataFolders = (parent) =>
  readdirSync(parent).filter((name) => name.startsWith('sse-next-postgres-'));

test('command serves the app and removes everything at its end', async (t) => {
  const port = await freePort();
  const env = environment(t);
  const child = begin(t, ['--port', `${port}`], env);
  const url = await printed(child, ({ out }) => /http:\S+/.exec(out)?.[0], 'the URL');
  assert.equal(url, `http://127.0.0.1:${port}`);
  // The alias of this host is another origin.
  const tab = await page(t, await browser(t), url.replace('127.0.0.1', 'localhost'));
  await tab.getByRole('button', { name: 'Sign in as Alice' }).click();
  await live(tab);
  await order(tab, 'lamp');
  await bell(tab, 1).waitFor();
  // The worker counts it.
  await tab.waitForFunction(() => document.querySelectorAll('dd')[1].textContent === '3');
  assert.deepEqual(tab.consoleErrors, []);

  const started = descendants(child.pid);
  assert.ok(started.length >= 5, 'Postgres, Redis, gateway, app, worker');
  assert.equal(dataFolders(env.TMPDIR).length, 1);
  child.kill('SIGINT');
  const { code } = await withTimeout(child.exited, 'the command does not exit');
  assert.deepEqual([code, child.err], [0, '']);
  await until(() => !started.some(isRunning), () => `left behind: ${started.filter(isRunning)}`);
  assert.deepEqual(dataFolders(env.TMPDIR), []);
});

test('Postgres ends and its data are removed after kill -9', async (t) => {
  const code = `
    import { startPostgres } from '${NEXT}/tools/postgres.mjs';
    const { child } = await startPostgres();
    console.log('ready');
    await child.exited;`;
  const env = environment(t);
  const parent = start(process.execPath, ['--input-type=module', '-e', code], { env });
  t.after(() => kill(parent));
  await printed(parent, ({ out }) => out.includes('ready'), 'that Postgres is ready');
  const started = descendants(parent.pid);
  assert.ok(started.length >= 3, 'supervisors and Postgres');
  await kill(parent);
  await until(() => !started.some(isRunning), () => `left behind: ${started.filter(isRunning)}`);
  assert.deepEqual(dataFolders(env.TMPDIR), []);
});

/** Runs a command that must fail, and returns its error output. */
async function refused(t, args, env) {
  const child = begin(t, args, env);
  const { code } = await withTimeout(child.exited, 'the command does not exit');
  assert.equal(code, 1);
  assert.equal(child.out, '');
  assert.doesNotMatch(child.err, /\n\s+at /, 'prints a stack trace');
  return child.err;
}

test('missing programs and invalid ports are reported', async (t) => {
  const emptyPath = folder(t, 'path');
  for (const needed of ['sh', 'cat']) symlinkSync(`/bin/${needed}`, path.join(emptyPath, needed));
  const withoutPrograms = { ...ENV, PATH: emptyPath };
  assert.match(await refused(t, [], withoutPrograms), /Neither redis-server.*apt-get install/s);
  const noPostgres = { ...ENV, POSTGRES_BIN: emptyPath };
  assert.match(await refused(t, [], noPostgres), /Postgres was not found.*apt-get install/s);
  const noGateway = { ...ENV, SSE_GATEWAY_BIN: '/nowhere/sse-gateway' };
  assert.match(await refused(t, [], noGateway), /SSE_GATEWAY_BIN: \/nowhere\/sse-gateway is not/);
  assert.match(await refused(t, ['--port', 'many']), /Invalid port: many/);
});
