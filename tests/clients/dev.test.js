// `sse-gateway dev`: its printed lines work as pasted, its page shows the way of an event, and it leaves nothing behind.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { browser, page } from './lib/browser.js';
import { children, folder, freePort, paths, printed, run, runs, start, until, within } from './lib/processes.js';
import { BINARY } from './lib/stand.js';

/** Starts `dev` as a terminal does: in a process group of its own, with a working and a temporary directory of its own. */
async function dev(t) {
  const port = await freePort();
  const home = folder(t, 'dev');
  const [work, temporary] = [path.join(home, 'work'), path.join(home, 'tmp')];
  for (const made of [work, temporary]) mkdirSync(made);
  const env = { PATH: process.env.PATH, HOME: home, TMPDIR: temporary };
  const child = start(BINARY, ['dev', '--listen', `127.0.0.1:${port}`], { detached: true, cwd: work, env });
  t.after(async () => {
    try { process.kill(-child.pid, 'SIGKILL'); } catch { /* it is gone */ }
    await child.exited;
  });
  const line = (start) => printed(child, ({ out, err }) => (out + err).split('\n').slice(0, -1).map((line) => line.trim()).find((line) => line.startsWith(start)), start);
  const publish = await line('redis-cli ');
  const listen = await line('curl -N ');
  const url = `http://127.0.0.1:${port}/`;
  await until(async () => { try { return (await fetch(url)).ok; } catch { return false; } }, () => `no page:\n${child.out}${child.err}`);
  return { child, url, publish, listen, home, work, temporary };
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

test('the redis-cli and the curl line that dev prints work as pasted', async (t) => {
  const { publish, listen } = await dev(t);
  const curl = paste(t, listen);
  await printed(curl, ({ out }) => out.includes('event: sse.connected'), 'sse.connected');
  await run('bash', ['-c', publish]);
  await printed(curl, ({ out }) => /\nid: \S+\nevent: (?!sse\.)\S+\ndata: .+\n\n/.test(out), 'the event');
});

test('the page: an event from redis-cli shows, and a dropped connection resumes', async (t) => {
  const { url, publish } = await dev(t);
  const shots = folder(t, 'shots');
  const tab = await page(t, await browser(t), url);
  await tab.waitForSelector('#state[data-state=open]');
  assert.match(await tab.textContent('#connection-id'), /^[0-9a-f-]{36}$/);

  await run('bash', ['-c', publish]);
  const row = await tab.waitForSelector('.event:not(.system)');
  assert.match(await row.getAttribute('data-id'), /^\d+-\d+$/);
  await tab.click('#publish button[type=submit]');
  await tab.waitForFunction(() => document.getElementById('publish-result').textContent.includes('arrived'));
  await tab.waitForFunction(() => document.querySelectorAll('.event[data-type="order-completed"]').length >= 1);

  // The names a native EventSource has a listener for: one published through the form gets one by itself.
  await tab.fill('#type', 'a-name-of-its-own');
  await tab.fill('#payload', '"<b>text</b>"');
  await tab.click('#publish button[type=submit]');
  const own = await tab.waitForSelector('.event[data-type="a-name-of-its-own"] pre');
  assert.equal(await own.textContent(), '"<b>text</b>"');

  const before = await tab.textContent('#connection-id');
  await tab.click('#drop');
  await tab.waitForSelector('#state[data-state=away]');
  await run('bash', ['-c', publish]);
  await tab.click('#publish-away');
  await tab.waitForFunction(() => document.getElementById('resume-result').textContent.startsWith('3 events published'));
  assert.equal(await tab.locator('.event[data-type=notification]').count(), 0);
  await tab.click('#back');
  await tab.waitForFunction(() => document.getElementById('resume-result').textContent.startsWith('Back. All 3 events'));
  await tab.waitForSelector('#state[data-state=open]');
  assert.notEqual(await tab.textContent('#connection-id'), before);
  const missed = await tab.locator('.event[data-type=notification] pre').allTextContents();
  assert.deepEqual(missed, ['{"missed":3}', '{"missed":2}', '{"missed":1}']);
  const ids = await tab.locator('.event:not(.system)').evaluateAll((rows) => rows.map((row) => row.dataset.id));
  assert.equal(ids.length, 7);
  assert.equal(new Set(ids).size, 7);
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
    await run('bash', ['-c', publish]);
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
  });
}
