// `sse-gateway dev`: the printed commands, the page, and that it leaves nothing behind.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { browser, page } from './lib/browser.js';
import { inOrder } from './lib/listener.js';
import {
  children,
  folder,
  freePort,
  kill,
  openPaths,
  printed,
  run,
  isRunning,
  start,
  until,
  tcpProxy,
  withTimeout,
} from './lib/processes.js';
import { BINARY } from './lib/servers.js';

/**
 * Starts `dev` like a terminal: in its own process group, with its own working and temporary
 * directory.
 */
async function dev(t, settings = {}, port) {
  port ??= await freePort();
  const home = folder(t, 'dev');
  const [work, temporary] = [path.join(home, 'work'), path.join(home, 'tmp')];
  for (const directory of [work, temporary]) mkdirSync(directory);
  const env = { PATH: process.env.PATH, HOME: home, TMPDIR: temporary, ...settings };
  const child = start(BINARY, ['dev', '--listen', `127.0.0.1:${port}`], {
    detached: true,
    cwd: work,
    env,
  });
  t.after(async () => {
    try { process.kill(-child.pid, 'SIGKILL'); } catch { /* it has exited */ }
    await child.exited;
  });
  const lines = ({ out }, start) =>
    out
      .split('\n')
      .slice(0, -1)
      .map((line) => line.trim())
      .filter((line) => line.startsWith(start));
  const [listen] = await printed(
    child,
    (child) => lines(child, 'curl -N ').length && lines(child, 'curl -N '),
    'a curl -N line',
  );
  const publish = await printed(
    child,
    (child) => lines(child, 'redis-cli ').length && lines(child, 'redis-cli '),
    'a redis-cli line',
  );
  const url = `http://127.0.0.1:${port}/`;
  await until(
    async () => {
      try {
        return (await fetch(url)).ok;
      } catch {
        return false;
      }
    },
    () => `no page:\n${child.out}${child.err}`,
  );
  return { child, port, url, publish, listen, home, work, temporary };
}

/** Runs a printed command in a shell, and kills it with all its children at the end of the test. */
function paste(t, line) {
  const shell = start('bash', ['-c', line], { detached: true });
  t.after(async () => {
    try { process.kill(-shell.pid, 'SIGKILL'); } catch { /* it has exited */ }
    await shell.exited;
  });
  return shell;
}

const pasteAll = async (lines) => { for (const line of lines) await run('bash', ['-c', line]); };

test('printed redis-cli and curl commands work', async (t) => {
  const { publish, listen } = await dev(t);
  const curl = paste(t, listen);
  await printed(curl, ({ out }) => out.includes('event: sse.connected'), 'sse.connected');
  await pasteAll(publish);
  await printed(
    curl,
    ({ out }) =>
      [...out.matchAll(/\nid: \S+\nevent: (?!sse\.)\S+\ndata: .+\n(?=\n)/g)].length ===
      publish.length,
    'the events',
  );
});

test('page shows events and resumes after disconnecting', async (t) => {
  const { url, publish } = await dev(t);
  const shots = folder(t, 'shots');
  const tab = await page(t, await browser(t), url);
  await tab.waitForSelector('#state[data-state=open]');
  assert.match(await tab.textContent('#connection-id'), /^[0-9a-f-]{36}$/);

  // Commands from the terminal, commands shown on the page, and the form.
  const shown = await tab.locator('#commands pre').allTextContents();
  assert.equal(shown.length, 2);
  await pasteAll([...publish, ...shown]);
  const rows = (count) =>
    tab.waitForFunction(
      (count) => document.querySelectorAll('.event:not(.system)').length === count,
      count,
    );
  let sent = publish.length + shown.length;
  await rows(sent);
  await tab.click('#publish button[type=submit]');
  await tab.waitForFunction(() =>
    document.getElementById('publish-result').textContent.includes('arrived'),
  );
  await rows(sent += 1);

  // A native EventSource needs a listener for each name; publishing with the form adds one.
  await tab.fill('#type', 'new-name');
  await tab.fill('#payload', '"<b>text</b>"');
  await tab.click('#publish button[type=submit]');
  const own = await tab.waitForSelector('.event[data-type="new-name"] pre');
  assert.equal(await own.textContent(), '"<b>text</b>"');
  await rows(sent += 1);
  await tab.click('#clear');

  const before = await tab.textContent('#connection-id');
  await tab.click('#drop');
  await tab.waitForSelector('#state[data-state=disconnected]');
  await pasteAll(publish);
  await tab.click('#publish-away');
  await tab.waitForFunction(() =>
    document.getElementById('resume-result').textContent.startsWith('3 events published'),
  );
  await rows(0);
  await tab.click('#back');
  await tab.waitForFunction(() =>
    document.getElementById('resume-result').textContent.startsWith('Reconnected. All 3 events'),
  );
  await tab.waitForSelector('#state[data-state=open]');
  assert.notEqual(await tab.textContent('#connection-id'), before);
  const missed = await tab.locator('.event[data-type=notification] pre').allTextContents();
  assert.deepEqual(missed, ['{"missed":3}', '{"missed":2}', '{"missed":1}']);
  await rows(publish.length + 3);
  const ids = await tab
    .locator('.event:not(.system)')
    .evaluateAll((rows) => rows.map((row) => row.dataset.id));
  assert.equal(new Set(ids).size, publish.length + 3);
  assert.ok(inOrder(ids.reverse()));
  assert.equal(await tab.locator('.event[data-type="sse.gap"]').count(), 0);

  for (const [name, colorScheme] of [['light', 'light'], ['dark', 'dark']]) {
    await tab.emulateMedia({ colorScheme });
    const file = path.join(shots, `${name}.png`);
    await tab.screenshot({ path: file, fullPage: true });
    assert.ok(statSync(file).size > 10_000);
  }
  await tab.setViewportSize({ width: 375, height: 700 });
  assert.ok(
    await tab.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth),
    'the page scrolls horizontally on a phone',
  );
  assert.deepEqual(tab.consoleErrors, []);
});

test('page shows retained values of a new stream', async (t) => {
  const { url } = await dev(t);
  const tab = await page(t, await browser(t), url);
  await tab.waitForSelector('#state[data-state=open]');
  const shows = (expected) => tab.waitForFunction(
    (expected) => document.getElementById('values').innerText.split('\n').join() === expected,
    expected,
  );
  const keep = async (key, value) => {
    await tab.fill('#key', key);
    await tab.fill('#value', value);
    await tab.click('#keep button[type=submit]');
  };
  await keep('btc', '1');
  await shows('btc = 1');
  await keep('eth', '2');
  await shows('btc = 1,eth = 2');
  await tab.click('#clear');
  await tab.click('#restart');
  await shows('btc = 1,eth = 2');
  await tab.waitForSelector('.event[data-type="sse.snapshot"]');
  assert.equal(await tab.locator('.event[data-type=value] .badge').count(), 2);
  await tab.click('#forget');
  await shows('btc = 1');
  await tab.reload();
  await shows('btc = 1');
  assert.deepEqual(tab.consoleErrors, []);
});

test('page resumes with a new ticket after session expiry', async (t) => {
  const { port, publish } = await dev(t, {
    SSE_GATEWAY__TICKETS__RECONNECT_GRACE: '1s',
    SSE_GATEWAY__TICKETS__LEEWAY: '0s',
    SSE_GATEWAY__SERVER__RETRY: '100ms',
  });
  const proxy = await tcpProxy(t, port);
  const tab = await page(t, await browser(t), 'about:blank');
  await tab.route('**/tickets', (route) =>
    route.continue({ postData: JSON.stringify({ user: 'demo', ttl: 2 }) }),
  );
  await tab.goto(`http://127.0.0.1:${proxy.port}/`);
  await tab.waitForSelector('#state[data-state=open]');

  proxy.cut();
  await tab.waitForSelector('#state[data-state=reconnecting]');
  await pasteAll(publish);
  // Wait until the ticket and the session have expired.
  const redisPort = publish[0].match(/-p (\d+)/)[1];
  await until(
    async () => (await run('redis-cli', ['-p', redisPort, 'KEYS', 'sse:session:*'])).trim() === '',
    'the session did not expire',
  );
  await proxy.restore();
  // Stream or poll, whichever succeeds first; each uses a new ticket.
  await tab.waitForSelector('#state[data-state=open], #state[data-state=polling]');
  await tab.waitForFunction(
    (count) => document.querySelectorAll('.event:not(.system)').length === count,
    publish.length,
  );
  assert.equal(await tab.locator('.event[data-type="sse.gap"]').count(), 0);
});

test('page of a previous run asks for a reload', async (t) => {
  const first = await dev(t);
  const proxy = await tcpProxy(t, first.port);
  const tab = await page(t, await browser(t), `http://127.0.0.1:${proxy.port}/`);
  await tab.waitForSelector('#state[data-state=open]');
  proxy.cut();
  await kill(first.child);
  const second = await dev(t, {}, first.port);
  await proxy.restore();
  await tab.click('.notice[data-notice=ticket] button');
  await tab.waitForSelector('#state[data-state=open]');
  await pasteAll(second.publish);
  await tab.waitForFunction(
    (count) => document.querySelectorAll('.event:not(.system)').length === count,
    second.publish.length,
  );
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
    await pasteAll(publish);
    const servers = children(child.pid);
    assert.ok(servers.length >= 1, 'a private Redis');
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
