// The page of `sse-gateway dev`: its timeline, its buttons, and its other panels.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { browser, page } from '../lib/browser.js';
import { inOrder } from '../lib/listener.js';
import { children, isRunning, kill, run, tcpProxy, until } from '../lib/processes.js';
import { demo, dev, marked, metrics, pasteAll, rows, shows } from './lib.js';

test('script of the README ends with three replayed events', async (t) => {
  const readme = readFileSync(new URL('../../../README.md', import.meta.url), 'utf8');
  const [script] = /Paste the first `redis-cli`[^]*?\n\n/.exec(readme);
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

test('events of a user and broadcasts may arrive in any order', async (t) => {
  const { tab, publish } = await demo(t);
  await tab.click('#drop');
  await tab.waitForSelector('#state[data-state=disconnected]');
  // The page reads what was published from one log after the other.
  const cli = publish[0].match(/^redis-cli -p \d+/)[0];
  await run('bash', ['-c', `${cli} <<END
FCALL sse_publish 1 broadcast:news headline 1
FCALL sse_publish 1 broadcast:alerts headline 2
FCALL sse_publish 1 user:demo:events notification 3
END`]);
  await shows(tab, '#published', '3');
  await tab.click('#back');
  await shows(tab, '#resume-result', /All 3 events published meanwhile arrived, once and in order/);
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
  const addresses = metrics(child);
  assert.equal(addresses.length, 2);
  // A tab that joins polls for the retained values, and the metric counts a poll until it ends.
  await until(async () => {
    let streams = 0;
    for (const address of addresses) {
      streams += Number(/^sse_connections (\d+)$/m.exec(await (await fetch(address)).text())[1]);
    }
    return streams === 1;
  }, 'the tabs do not share one stream');
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
  await tab.waitForFunction(() =>
    document.querySelectorAll('.event[data-type=value] .badge').length === 2);
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

test('page requests again what it gets no response to', async (t) => {
  const { url, publish } = await dev(t);
  const tab = await page(t, await browser(t), 'about:blank');
  let unanswered = 0;
  await tab.route('**/dev/published?*', (route) => {
    if (route.request().url().includes('after=') && !unanswered) unanswered += 1;
    else return route.continue();
  });
  await tab.goto(url);
  await until(() => unanswered === 1, 'the page does not read what was published');
  await pasteAll(publish);
  await shows(tab, '#published', String(publish.length));
});

test('page says whether an event may have been published', async (t) => {
  const { tab } = await demo(t);
  await tab.fill('#channel', 'nowhere');
  await tab.click('#publish button[type=submit]');
  await shows(tab, '#publish-result', /^Not published: .+ \(bad-channel\)$/);
  await tab.route('**/publish', (route) => route.abort());
  await tab.click('#publish button[type=submit]');
  await shows(tab, '#publish-result', /^Perhaps not published: /);
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
