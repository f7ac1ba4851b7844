// `sse-gateway dev`: the printed commands, errors, and that it leaves nothing behind.
import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import {
  children,
  isRunning,
  openPaths,
  printed,
  run,
  start,
  until,
  withTimeout,
} from '../lib/processes.js';
import { BINARY } from '../lib/servers.js';
import { dev, metrics, paste, pasteAll } from './lib.js';

/** Number of events in the output of curl. */
const eventsIn = (out) =>
  [...out.matchAll(/\nid: \S+\nevent: (?!sse\.)\S+\ndata: .+\n(?=\n)/g)].length;

test('printed redis-cli and curl commands work', async (t) => {
  const { publish, listen } = await dev(t);
  const curl = paste(t, listen);
  await printed(curl, ({ out }) => out.includes('event: sse.connected'), 'sse.connected');
  await pasteAll(publish);
  await printed(curl, ({ out }) => eventsIn(out) === publish.length, 'the events');
});

test('private Redis that was killed is started again', async (t) => {
  const { child, publish } = await dev(t);
  const cli = publish[0].match(/^redis-cli -p \d+/)[0];
  const serverProcess = async () => {
    const info = await run('bash', ['-c', `${cli} INFO server`]);
    return Number(info.match(/process_id:(\d+)/)?.[1]);
  };
  const first = await serverProcess();
  process.kill(first, 'SIGKILL');
  await printed(child, ({ err }) => err.includes('the private Redis has ended'), 'the restart');
  await until(
    () => serverProcess().then((now) => now && now !== first, () => false),
    () => 'Redis does not respond',
  );
});

test('busy port: the error names the flag', async (t) => {
  const { port } = await dev(t);
  const second = start(BINARY, ['dev', '--listen', `127.0.0.1:${port}`]);
  const { code } = await withTimeout(second.exited, 'dev does not exit');
  assert.equal(code, 71);
  assert.match(second.err, new RegExp(`^--listen 127.0.0.1:${port}: .*--listen 127.0.0.1:8090`));
});

const ENDS = {
  'SIGINT to its group (Ctrl-C)': (pid) => process.kill(-pid, 'SIGINT'),
  SIGTERM: (pid) => process.kill(pid, 'SIGTERM'),
  'SIGHUP to its group (the terminal is closed)': (pid) => process.kill(-pid, 'SIGHUP'),
  'kill -9 of its group': (pid) => process.kill(-pid, 'SIGKILL'),
  'kill -9 of itself': (pid) => process.kill(pid, 'SIGKILL'),
};
for (const [name, end] of Object.entries(ENDS)) {
  test(`dev leaves nothing behind: ${name}`, async (t) => {
    const { child, home, work, temporary, listen, publish } = await dev(t);
    const curl = paste(t, listen);
    await printed(curl, ({ out }) => out.includes('event: sse.connected'), 'sse.connected');
    // Without a standby, stopping the writer causes a gap, which the gateways log.
    const standby = async (address) =>
      /^sse_recorder_role\{.*role="standby".*\} 1$/m.test(await (await fetch(address)).text());
    await until(
      async () => (await Promise.all(metrics(child).map(standby))).includes(true),
      'there is no standby',
    );
    await pasteAll(publish);
    await printed(curl, ({ out }) => eventsIn(out) === publish.length, 'the events');
    const servers = children(child.pid);
    assert.equal(servers.length, 3, 'a private Redis and two gateways');
    // Working directories and open files, except the binary and system files.
    const open = [child.pid, ...servers]
      .flatMap(openPaths)
      .map((file) => file.replace(/ \(deleted\)$/, ''))
      .filter((file) => file !== work && file !== '/' && !/^\/(usr|etc)\//.test(file));

    end(child.pid);
    await withTimeout(child.exited, () => `dev does not exit:\n${child.out}${child.err}`);
    await until(() => !servers.some(isRunning), `left behind: ${servers.filter(isRunning)}`);
    assert.deepEqual(readdirSync(work), []);
    assert.deepEqual(readdirSync(temporary), []);
    assert.deepEqual(readdirSync(home).sort(), ['tmp', 'work']);
    assert.deepEqual(open.filter((file) => existsSync(file)), []);
    if (/^SIG(INT|TERM)/.test(name)) {
      assert.deepEqual(await child.exited, { code: 0, signal: null });
      assert.equal(child.err, '', 'a clean exit prints nothing');
    }
  });
}
