// The one command of the example: what it starts, what it says when it cannot, and that it leaves nothing behind.
import assert from 'node:assert/strict';
import { readlinkSync, realpathSync, symlinkSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { test } from 'node:test';
import { browser, page } from '../lib/browser.js';
import { children, folder, freePort, printed, runs, start, until, within } from '../lib/processes.js';
import { BINARY } from '../lib/stand.js';
import { DASHBOARD, counter, live, publish } from './lib.js';

const ENV = { PATH: process.env.PATH, HOME: process.env.HOME, SSE_GATEWAY_BIN: BINARY };

/** Runs the command as a terminal does, in a process group of its own. */
function command(t, args, env = ENV) {
  const child = start(process.execPath, [path.join(DASHBOARD, 'start.js'), ...args], { detached: true, env });
  t.after(async () => {
    try { process.kill(-child.pid, 'SIGKILL'); } catch { /* it is gone */ }
    await child.exited;
  });
  return child;
}

const all = (pid) => children(pid).flatMap((child) => [child, ...all(child)]);
const url = (child) => printed(child, ({ out }) => /http:\/\/\S+\//.exec(out)?.[0], 'its URL');

test('one command: the page works, on the port that was asked for', async (t) => {
  const port = await freePort();
  const child = command(t, ['--port', `${port}`]);
  const address = await url(child);
  assert.equal(address, `http://127.0.0.1:${port}/`);
  assert.equal(child.out.match(/http:/g).length, 1, 'one URL');
  // By the other name of this host too: it is another origin.
  const tab = await page(t, await browser(t), address.replace('127.0.0.1', 'localhost'));
  await live(tab);
  await publish(tab, 'Order', 'Alice');
  await counter(tab, 'alice', 'order', 1);
  assert.deepEqual(tab.complaints, []);
});

const ENDS = {
  'Ctrl-C': (pid) => process.kill(-pid, 'SIGINT'),
  'SIGTERM': (pid) => process.kill(pid, 'SIGTERM'),
  'the terminal is closed': (pid) => process.kill(-pid, 'SIGHUP'),
  'kill -9 of its group': (pid) => process.kill(-pid, 'SIGKILL'),
  'kill -9': (pid) => process.kill(pid, 'SIGKILL'),
};
for (const [name, end] of Object.entries(ENDS)) {
  test(`nothing stays behind: ${name}`, async (t) => {
    const child = command(t, [], { ...ENV, PORT: `${await freePort()}` });
    await url(child);
    const started = all(child.pid);
    assert.ok(started.length >= 3, 'the gateway with its keeper, and its Redis');
    end(child.pid);
    const { code } = await within(child.exited, 'it does not end');
    await until(() => !started.some(runs), () => `left behind: ${started.filter(runs)}`);
    if (!name.startsWith('kill -9')) assert.deepEqual([code, child.err], [0, '']);
  });
}

test('a program that ends by itself ends it all, and is named', async (t) => {
  const child = command(t, ['--port', `${await freePort()}`]);
  await url(child);
  const started = all(child.pid);
  process.kill(started.find((pid) => readlinkSync(`/proc/${pid}/exe`) === realpathSync(BINARY)), 'SIGKILL');
  const { code } = await within(child.exited, 'it does not end');
  assert.equal(code, 1);
  assert.match(child.err, /sse-gateway ended/);
  await until(() => !started.some(runs), () => `left behind: ${started.filter(runs)}`);
});

/** The end of a command that cannot work: its only words. */
async function refused(t, args, env) {
  const child = command(t, args, env);
  const { code } = await within(child.exited, 'it does not end');
  assert.equal(code, 1);
  assert.equal(child.out, '');
  assert.doesNotMatch(child.err, /\n\s+at /, 'no stack');
  return child.err;
}

test('what is missing is named, with what to do', async (t) => {
  const bare = folder(t, 'path');
  for (const needed of ['sh', 'cat']) symlinkSync(`/bin/${needed}`, path.join(bare, needed));
  assert.match(await refused(t, [], { ...ENV, PATH: bare }), /neither redis-server nor valkey-server.*apt-get install/s);
  assert.match(await refused(t, [], { ...ENV, SSE_GATEWAY_BIN: '/nowhere/sse-gateway' }), /SSE_GATEWAY_BIN is \/nowhere\/sse-gateway/);
  assert.match(await refused(t, [], { ...ENV, SSE_GATEWAY_BIN: '', CARGO_TARGET_DIR: bare }), /no sse-gateway\. Build it/);
  assert.match(await refused(t, ['--port', 'many']), /many is no port/);
  const taken = net.createServer();
  await new Promise((resolve) => { taken.listen(0, '127.0.0.1', resolve); });
  t.after(() => taken.close());
  assert.match(await refused(t, ['--port', `${taken.address().port}`]), /is taken\. Give another: --port/);
});
