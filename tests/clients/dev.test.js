// `sse-gateway dev`: the printed commands, the page, and that it leaves nothing behind.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { violations } from './lib/axe.js';
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

/** Opens the page of a new `dev`, and waits for its stream. */
async function demo(t, settings, look) {
  const running = await dev(t, settings);
  const tab = await page(t, await browser(t), running.url, look);
  await tab.waitForSelector('#state[data-state=open]');
  return { ...running, tab };
}

/** Waits until the page shows this text, or text that matches. */
const shows = (tab, selector, expected) =>
  tab.waitForFunction(
    ([selector, source]) =>
      new RegExp(source).test(document.querySelector(selector)?.textContent ?? ''),
    [selector, expected instanceof RegExp ? expected.source : `^${expected}$`],
  );

/** Number of events of a kind in the timeline: live, replayed, missing or pending. */
const marked = (tab, kind) =>
  tab
    .locator(`#lanes .event-mark.${kind}`)
    .evaluateAll((marks) => marks.reduce((sum, { dataset }) => sum + Number(dataset.count), 0));

const rows = (tab, count) =>
  tab.waitForFunction(
    (count) => document.querySelectorAll('.event:not(.system)').length === count,
    count,
  );

test('script of the README ends with three replayed events', async (t) => {
  const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
  const [script] = /Paste the `redis-cli`[^]*?\n\n/.exec(readme);
  assert.match(script, /"Disconnect"[^]*three more times[^]*"Reconnect now"[^]*all three/);
  const { tab, publish: [command] } = await demo(t);

  await pasteAll([command]);
  await rows(tab, 1);
  await tab.getByRole('button', { name: 'Disconnect', exact: true }).click();
  await tab.waitForSelector('#state[data-state=disconnected]');
  // Also with names that the page has not met.
  await pasteAll([command, ...['new-name', 'newer-name'].map((name) =>
    command.replace('order-completed', name))]);
  await shows(tab, '#published', '4');
  await shows(tab, '#received', '1');
  assert.equal(await marked(tab, 'pending'), 3);
  await tab.getByRole('button', { name: 'Reconnect now' }).click();
  await shows(tab, '#resume-result', /All 3 events published meanwhile arrived, once and in order/);
  await shows(tab, '#timeline-text', '4 published, 4 received, 3 replayed');
  assert.equal(await marked(tab, 'replayed'), 3);
  assert.equal(await tab.locator('#lanes .outage').count(), 1);
  await tab.waitForFunction(() => document.querySelectorAll('.event .badge').length === 3);
  const shown = await tab
    .locator('.event:not(.system)')
    .evaluateAll((rows) => rows.map(({ dataset }) => ({ ...dataset })));
  assert.deepEqual(
    shown.map(({ type }) => type),
    ['newer-name', 'new-name', 'order-completed', 'order-completed'],
  );
  assert.ok(inOrder(shown.map(({ id }) => id).reverse()));
  assert.equal(await tab.locator('.event[data-type="sse.gap"]').count(), 0);
  assert.deepEqual(tab.consoleErrors, []);
});

test('page shows the events of all publishers and all names', async (t) => {
  const { tab, publish } = await demo(t);
  // Commands from the terminal, and commands shown on the page.
  const onPage = await tab.locator('#commands pre').allTextContents();
  assert.equal(onPage.length, 2);
  await pasteAll([...publish, ...onPage]);
  let sent = publish.length + onPage.length;
  await rows(tab, sent);

  // A native EventSource needs a listener for each name. The page adds one when it sees the name.
  await pasteAll([publish[0].replace('order-completed', 'terminal-name')]);
  await tab.waitForSelector('.event[data-type="terminal-name"]');
  await rows(tab, sent += 1);
  await tab.fill('#type', 'form-name');
  await tab.fill('#payload', '"<b>text</b>"');
  await tab.click('#publish button[type=submit]');
  const own = await tab.waitForSelector('.event[data-type="form-name"] pre');
  assert.equal(await own.textContent(), '"<b>text</b>"');
  await shows(tab, '#publish-result', /arrived in \d+ ms/);
  await tab.click('#burst');
  await rows(tab, sent += 51);
  await shows(tab, '#timeline-text', `${sent} published, ${sent} received, 0 replayed`);

  for (const link of await tab.locator('nav a').evaluateAll((all) => all.map(({ href }) => href))) {
    const response = await fetch(link);
    assert.equal(response.status, 200, link);
    assert.match(await response.text(), /^# /, link);
  }
  assert.deepEqual(tab.consoleErrors, []);
});

test('kill button: the page continues on the other gateway', async (t) => {
  const { tab, child } = await demo(t);
  const isGateway = (pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').endsWith('\0dev\0');
  const gateways = () => children(child.pid).filter((pid) => isRunning(pid) && isGateway(pid));
  const before = gateways();
  assert.equal(before.length, 2);
  const gateway = async () => (await tab.textContent('#gateway')).match(/^(\d) .* (\d+)\)$/);
  await shows(tab, '#gateway', /process/);
  const [, number, pid] = await gateway();
  assert.ok(before.includes(Number(pid)));

  await tab.click('#kill');
  await until(() => !isRunning(Number(pid)), 'the gateway was not killed');
  await shows(tab, '#gateway', new RegExp(`^${3 - number} of 2`));
  await shows(tab, '#resume-result', /^Reconnected/);
  await shows(tab, '#timeline-text', /^3 published, 3 received/);
  await shows(tab, '#lanes .outage', `gateway ${number} killed`);
  assert.equal(await tab.locator('.event[data-type="sse.gap"]').count(), 0);

  // It is started again, and the page can lose the other one, too.
  await until(() => gateways().length === 2, 'the gateway was not started again');
  assert.ok(!gateways().includes(Number(pid)));
  await tab.click('#kill');
  await shows(tab, '#gateway', new RegExp(`^${number} of 2`));
  await shows(tab, '#timeline-text', /^6 published, 6 received/);
});

test('gap button: the gap and its reason are shown', async (t) => {
  const { tab } = await demo(t);
  await tab.click('#gap');
  await shows(tab, '#lanes .gap', 'gap: trimmed');
  await shows(tab, '#resume-result', /gap \(trimmed\): 1 of 3 events arrived/);
  await shows(tab, '#timeline-text', '3 published, 1 received, 1 replayed, 2 missing');
  assert.equal(await marked(tab, 'missing'), 2);
  await tab.waitForSelector('.event[data-type="sse.gap"]');
  assert.match(await tab.textContent('.notice[data-notice=gap]'), /user:demo:events/);
});

test('seven tabs share one stream', async (t) => {
  const { tab, url, publish, child } = await demo(t);
  const tabs = [tab];
  while (tabs.length < 7) {
    const next = await tab.context().newPage();
    await next.goto(url);
    await next.waitForSelector('#state[data-state=open]');
    tabs.push(next);
  }
  const [last, ...others] = tabs.reverse();
  const metrics = [...child.out.matchAll(/http:\S+\/metrics/g)];
  assert.equal(metrics.length, 2);
  let streams = 0;
  for (const [address] of metrics) {
    streams += Number(/^sse_connections (\d+)$/m.exec(await (await fetch(address)).text())[1]);
  }
  assert.equal(streams, 1);
  // A tab that is disconnected alone catches up, although it has received no event before.
  await last.click('#drop');
  await last.waitForSelector('#state[data-state=disconnected]');
  await pasteAll(publish);
  for (const each of others) await rows(each, publish.length);
  await shows(last, '#published', String(publish.length));
  await last.click('#back');
  await shows(last, '#resume-result', /All 2 events published meanwhile arrived/);
  await rows(last, publish.length);
});

test('page shows who is online', async (t) => {
  const { tab, url } = await demo(t);
  const online = (...users) => shows(tab, '#online', users.join(''));
  await online('demo \\(this page\\)');
  const link = await tab.getByRole('link', { name: 'Open a tab as alice' }).getAttribute('href');
  const other = await tab.context().newPage();
  await other.goto(new URL(link, url).href);
  await shows(other, '#online', /alice \(this page\)demo/);
  await online('alice', 'demo \\(this page\\)');
  await other.close();
  await online('demo \\(this page\\)');
});

const LOOKS = {
  'on a desktop': {},
  'on a phone': { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true },
};
for (const [name, look] of Object.entries(LOOKS)) {
  test(`axe-core finds no violations on the page: ${name}`, async (t) => {
    // Without animations, which would change the measured colours.
    const { tab, publish } = await demo(t, {}, { reducedMotion: 'reduce', ...look });
    const check = async () => {
      for (const colorScheme of ['light', 'dark']) {
        await tab.emulateMedia({ colorScheme });
        assert.deepEqual(await violations(tab), [], colorScheme);
      }
    };
    await pasteAll(publish);
    await tab.click('#gap');
    await shows(tab, '#resume-result', /gap \(trimmed\)/);
    await tab.click('.names summary');
    await check();
    await tab.click('#drop');
    await tab.waitForSelector('#back:not(:disabled)');
    await check();
    assert.ok(
      await tab.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth),
      'the page scrolls horizontally',
    );
    if (!look.isMobile) return;
    const sections = await tab.evaluate(() =>
      [...document.querySelectorAll('section')]
        .sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)
        .map((section) => section.querySelector('h2').textContent));
    assert.equal(sections[sections.indexOf('Publish') + 1], 'Events');
  });
}

test('page can be used with the keyboard', async (t) => {
  const { tab } = await demo(t);
  const press = async (name) => {
    for (let presses = 0; presses < 30; presses += 1) {
      if (await tab.evaluate(() => document.activeElement.textContent.trim()) === name) {
        await tab.keyboard.press('Enter');
        return;
      }
      await tab.keyboard.press('Tab');
    }
    assert.fail(`${name} was not focused`);
  };
  const focused = (id) =>
    tab.waitForFunction((id) => document.activeElement.id === id, id);
  await press('Disconnect');
  await focused('publish-away');
  await press('Publish 3 events');
  await focused('back');
  await press('Reconnect now');
  await shows(tab, '#resume-result', /All 3 events/);
  await focused('drop');
});

test('busy port: the error names the flag', async (t) => {
  const { port } = await dev(t);
  const second = start(BINARY, ['dev', '--listen', `127.0.0.1:${port}`]);
  const { code } = await withTimeout(second.exited, 'dev does not exit');
  assert.equal(code, 71);
  assert.match(second.err, new RegExp(`^--listen 127.0.0.1:${port}: .*--listen 127.0.0.1:8090`));
});

test('page shows retained values of a new stream', async (t) => {
  const { tab } = await demo(t);
  const values = (expected) => tab.waitForFunction(
    (expected) => document.getElementById('values').innerText.split('\n').join() === expected,
    expected,
  );
  const keep = async (key, value) => {
    await tab.fill('#key', key);
    await tab.fill('#value', value);
    await tab.click('#keep button[type=submit]');
  };
  await keep('btc', '1');
  await values('btc = 1');
  await keep('eth', '2');
  await values('btc = 1,eth = 2');
  await tab.click('#clear');
  await tab.click('#restart');
  await values('btc = 1,eth = 2');
  await tab.waitForSelector('.event[data-type="sse.snapshot"]');
  assert.equal(await tab.locator('.event[data-type=value] .badge').count(), 2);
  await tab.click('#forget');
  await values('btc = 1');
  await tab.reload();
  await values('btc = 1');
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
