// The start command of the example: what it starts, its error messages, and that it stops every
// process.
import assert from 'node:assert/strict';
import { readlinkSync, realpathSync, symlinkSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { test } from 'node:test';
import { browser, page } from '../lib/browser.js';
import {
  children,
  folder,
  freePort,
  printed,
  isRunning,
  start,
  until,
  withTimeout,
} from '../lib/processes.js';
import { BINARY } from '../lib/servers.js';
import { DASHBOARD, counter, live, publish } from './lib.js';

const ENV = { PATH: process.env.PATH, HOME: process.env.HOME, SSE_GATEWAY_BIN: BINARY };

/** Runs the command like a terminal, in its own process group. */
function command(t, args, env = ENV) {
  const child = start(process.execPath, [path.join(DASHBOARD, 'start.js'), ...args], {
    detached: true,
    env,
  });
  t.after(async () => {
    try { process.kill(-child.pid, 'SIGKILL'); } catch { /* it has exited */ }
    await child.exited;
  });
  return child;
}

const descendants = (pid) => children(pid).flatMap((child) => [child, ...descendants(child)]);
const url = (child) => printed(child, ({ out }) => /http:\/\/\S+\//.exec(out)?.[0], 'the URL');

test('command serves the page on the requested port', async (t) => {
  const port = await freePort();
  const child = command(t, ['--port', `${port}`]);
  const address = await url(child);
  assert.equal(address, `http://127.0.0.1:${port}/`);
  assert.equal(child.out.match(/http:/g).length, 1, 'prints one URL');
  // The alias of this host is another origin.
  const tab = await page(t, await browser(t), address.replace('127.0.0.1', 'localhost'));
  await live(tab);
  await publish(tab, 'Order', 'Alice');
  await counter(tab, 'alice', 'order', 1);
  assert.deepEqual(tab.consoleErrors, []);
});

const ENDS = {
  'Ctrl-C': (pid) => process.kill(-pid, 'SIGINT'),
  'SIGTERM': (pid) => process.kill(pid, 'SIGTERM'),
  'the terminal is closed': (pid) => process.kill(-pid, 'SIGHUP'),
  'kill -9 of its group': (pid) => process.kill(-pid, 'SIGKILL'),
  'kill -9': (pid) => process.kill(pid, 'SIGKILL'),
};
for (const [name, end] of Object.entries(ENDS)) {
  test(`command stops every process: ${name}`, async (t) => {
    const child = command(t, [], { ...ENV, PORT: `${await freePort()}` });
    await url(child);
    const started = descendants(child.pid);
    assert.ok(started.length >= 3, 'supervisor, gateway and Redis');
    end(child.pid);
    const { code } = await withTimeout(child.exited, 'the command does not exit');
    await until(() => !started.some(isRunning), () => `left behind: ${started.filter(isRunning)}`);
    if (!name.startsWith('kill -9')) assert.deepEqual([code, child.err], [0, '']);
  });
}

test('gateway exit stops the command with an error', async (t) => {
  const child = command(t, ['--port', `${await freePort()}`]);
  await url(child);
  const started = descendants(child.pid);
  process.kill(
    started.find((pid) => readlinkSync(`/proc/${pid}/exe`) === realpathSync(BINARY)),
    'SIGKILL',
  );
  const { code } = await withTimeout(child.exited, 'the command does not exit');
  assert.equal(code, 1);
  assert.match(child.err, /sse-gateway exited/);
  await until(() => !started.some(isRunning), () => `left behind: ${started.filter(isRunning)}`);
});

/** Runs a command that must fail, and returns its error output. */
async function refused(t, args, env) {
  const child = command(t, args, env);
  const { code } = await withTimeout(child.exited, 'the command does not exit');
  assert.equal(code, 1);
  assert.equal(child.out, '');
  assert.doesNotMatch(child.err, /\n\s+at /, 'prints a stack trace');
  return child.err;
}

test('missing programs and ports are reported', async (t) => {
  const emptyPath = folder(t, 'path');
  for (const needed of ['sh', 'cat']) symlinkSync(`/bin/${needed}`, path.join(emptyPath, needed));
  assert.match(
    await refused(t, [], { ...ENV, PATH: emptyPath }),
    /neither redis-server nor valkey-server.*apt-get install/s,
  );
  assert.match(
    await refused(t, [], { ...ENV, SSE_GATEWAY_BIN: '/nowhere/sse-gateway' }),
    /SSE_GATEWAY_BIN: \/nowhere\/sse-gateway is not/,
  );
  assert.match(
    await refused(t, [], { ...ENV, SSE_GATEWAY_BIN: '', CARGO_TARGET_DIR: emptyPath }),
    /sse-gateway not found\. Build it/,
  );
  assert.match(await refused(t, ['--port', 'many']), /Invalid port: many/);
  const taken = net.createServer();
  await new Promise((resolve) => { taken.listen(0, '127.0.0.1', resolve); });
  t.after(() => taken.close());
  assert.match(
    await refused(t, ['--port', `${taken.address().port}`]),
    /is in use\. Choose another: --port/,
  );
});
