// `sse-gateway dev`: its printed lines work as pasted, its page shows the way of an event, and it leaves nothing behind.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { browser, page } from './lib/browser.js';
import { inOrder } from './lib/listener.js';
import { children, folder, freePort, kill, paths, printed, run, runs, start, until, wire, within } from './lib/processes.js';
import { BINARY } from './lib/stand.js';

/** Starts `dev` as a terminal does: in a process group of its own, with a working and a temporary directory of its own. */
async function dev(t, settings = {}, port) {
  port ??= await freePort();
  const home = folder(t, 'dev');
  const [work, temporary] = [path.join(home, 'work'), path.join(home, 'tmp')];
  for (const made of [work, temporary]) mkdirSync(made);
  const env = { PATH: process.env.PATH, HOME: home, TMPDIR: temporary, ...settings };
  const child = start(BINARY, ['dev', '--listen', `127.0.0.1:${port}`], { detached: true, cwd: work, env });
  t.after(async () => {
    try { process.kill(-child.pid, 'SIGKILL'); } catch { /* it is gone */ }
    await child.exited;
  });
  const lines = ({ out }, start) => out.split('\n').slice(0, -1).map((line) => line.trim()).filter((line) => line.startsWith(start));
  const [listen] = await printed(child, (child) => lines(child, 'curl -N ').length && lines(child, 'curl -N '), 'a curl -N line');
  const publish = await printed(child, (child) => lines(child, 'redis-cli ').length && lines(child, 'redis-cli '), 'a redis-cli line');
  const url = `http://127.0.0.1:${port}/`;
  await until(async () => { try { return (await fetch(url)).ok; } catch { return false; } }, () => `no page:\n${child.out}${child.err}`);
  return { child, port, url, publish, listen, home, work, temporary };
}

/** A pasted line, in a shell of its own; ended with all that it started. */
function paste(t, line) {
  const shell = start('bash', ['-c', line], { detached: true });
  t.after(async () => {
    try { process.kill(-shell.pid, 'SIGKILL'); } catch { /* it is gone */ }
    await shell.exited;
  });
  return shell;
}

const pasteAll = async (lines) => { for (const line of lines) await run('bash', ['-c', line]); };

test('the redis-cli and the curl lines that dev prints work as pasted', async (t) => {
  const { publish, listen } = await dev(t);
  const curl = paste(t, listen);
  await printed(curl, ({ out }) => out.includes('event: sse.connected'), 'sse.connected');
  await pasteAll(publish);
  await printed(curl, ({ out }) => [...out.matchAll(/\nid: \S+\nevent: (?!sse\.)\S+\ndata: .+\n(?=\n)/g)].length === publish.length, 'the events');
});

test('the page: an event from redis-cli shows, and a dropped connection resumes', async (t) => {
  const { url, publish } = await dev(t);
  const shots = folder(t, 'shots');
  const tab = await page(t, await browser(t), url);
  await tab.waitForSelector('#state[data-state=open]');
  assert.match(await tab.textContent('#connection-id'), /^[0-9a-f-]{36}$/);

  // What the terminal shows and what the page shows to paste, and the form.
  const shown = await tab.locator('#commands pre').allTextContents();
  assert.equal(shown.length, 2);
  await pasteAll([...publish, ...shown]);
  const rows = (count) => tab.waitForFunction((count) => document.querySelectorAll('.event:not(.system)').length === count, count);
  let sent = publish.length + shown.length;
  await rows(sent);
  await tab.click('#publish button[type=submit]');
  await tab.waitForFunction(() => document.getElementById('publish-result').textContent.includes('arrived'));
  await rows(sent += 1);

  // The names a native EventSource has a listener for: one published through the form gets one by itself.
  await tab.fill('#type', 'a-name-of-its-own');
  await tab.fill('#payload', '"<b>text</b>"');
  await tab.click('#publish button[type=submit]');
  const own = await tab.waitForSelector('.event[data-type="a-name-of-its-own"] pre');
  assert.equal(await own.textContent(), '"<b>text</b>"');
  await rows(sent += 1);
  await tab.click('#clear');

  const before = await tab.textContent('#connection-id');
  await tab.click('#drop');
  await tab.waitForSelector('#state[data-state=away]');
  await pasteAll(publish);
  await tab.click('#publish-away');
  await tab.waitForFunction(() => document.getElementById('resume-result').textContent.startsWith('3 events published'));
  await rows(0);
  await tab.click('#back');
  await tab.waitForFunction(() => document.getElementById('resume-result').textContent.startsWith('Back. All 3 events'));
  await tab.waitForSelector('#state[data-state=open]');
  assert.notEqual(await tab.textContent('#connection-id'), before);
  const missed = await tab.locator('.event[data-type=notification] pre').allTextContents();
  assert.deepEqual(missed, ['{"missed":3}', '{"missed":2}', '{"missed":1}']);
  await rows(publish.length + 3);
  const ids = await tab.locator('.event:not(.system)').evaluateAll((rows) => rows.map((row) => row.dataset.id));
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
  assert.ok(await tab.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth), 'nothing sticks out on a phone');
  assert.deepEqual(tab.complaints, []);
});

test('the page comes back from a long sleep: with its session gone it gets a new ticket, and what it has missed', async (t) => {
  const { port, publish } = await dev(t, {
    SSE_GATEWAY__TICKETS__RECONNECT_GRACE: '1s', SSE_GATEWAY__TICKETS__LEEWAY: '0s', SSE_GATEWAY__SERVER__RETRY: '100ms',
  });
  const line = await wire(t, port);
  const tab = await page(t, await browser(t), 'about:blank');
  await tab.route('**/tickets', (route) => route.continue({ postData: JSON.stringify({ user: 'demo', ttl: 2 }) }));
  await tab.goto(`http://127.0.0.1:${line.port}/`);
  await tab.waitForSelector('#state[data-state=open]');

  line.cut();
  await tab.waitForSelector('#state[data-state=reconnecting]');
  await pasteAll(publish);
  // Longer than the ticket is valid, and than its session lives without a stream.
  const redisPort = publish[0].match(/-p (\d+)/)[1];
  await until(async () => (await run('redis-cli', ['-p', redisPort, 'KEYS', 'sse:session:*'])).trim() === '', 'the session lives on');
  await line.mend();
  // Whichever way comes through first: a stream or a poll, each with a new ticket.
  await tab.waitForSelector('#state[data-state=open], #state[data-state=polling]');
  await tab.waitForFunction((count) => document.querySelectorAll('.event:not(.system)').length === count, publish.length);
  assert.equal(await tab.locator('.event[data-type="sse.gap"]').count(), 0);
});

test('the page of an earlier run says so', async (t) => {
  const first = await dev(t);
  const line = await wire(t, first.port);
  const tab = await page(t, await browser(t), `http://127.0.0.1:${line.port}/`);
  await tab.waitForSelector('#state[data-state=open]');
  line.cut();
  await kill(first.child);
  const second = await dev(t, {}, first.port);
  await line.mend();
  await tab.click('.notice[data-notice=ticket] button');
  await tab.waitForSelector('#state[data-state=open]');
  await pasteAll(second.publish);
  await tab.waitForFunction((count) => document.querySelectorAll('.event:not(.system)').length === count, second.publish.length);
});

const ENDS = {
  'SIGINT to its group (Ctrl-C)': (pid) => process.kill(-pid, 'SIGINT'),
  SIGTERM: (pid) => process.kill(pid, 'SIGTERM'),
  'SIGHUP to its group (the terminal is closed)': (pid) => process.kill(-pid, 'SIGHUP'),
  'kill -9 of its group': (pid) => process.kill(-pid, 'SIGKILL'),
  'kill -9 of itself': (pid) => process.kill(pid, 'SIGKILL'),
};
for (const [name, end] of Object.entries(ENDS)) {
  test(`dev leaves no process and no file behind: ${name}`, async (t) => {
    const { child, home, work, temporary, listen, publish } = await dev(t);
    const curl = paste(t, listen);
    await printed(curl, ({ out }) => out.includes('event: sse.connected'), 'sse.connected');
    await pasteAll(publish);
    const servers = children(child.pid);
    assert.ok(servers.length >= 1, 'a Redis of its own');
    // Where they live and what they hold open, the binary and the system's own files apart.
    const held = [child.pid, ...servers].flatMap(paths).map((held) => held.replace(/ \(deleted\)$/, ''))
      .filter((held) => held !== work && held !== '/' && !held.startsWith('/usr/') && !held.startsWith('/etc/'));

    end(child.pid);
    await within(child.exited, () => `dev does not end:\n${child.out}${child.err}`);
    await until(() => !servers.some(runs), `left behind: ${servers.filter(runs)}`);
    assert.deepEqual(readdirSync(work), []);
    assert.deepEqual(readdirSync(temporary), []);
    assert.deepEqual(readdirSync(home).sort(), ['tmp', 'work']);
    assert.deepEqual(held.filter((held) => existsSync(held)), []);
    if (/^SIG(INT|TERM)/.test(name)) {
      assert.deepEqual(await child.exited, { code: 0, signal: null });
      assert.equal(child.err, '', 'a clean end says nothing');
    }
  });
}
