// The admin page in a browser: signing in, rights, users, channels, traces and test events.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../lib/processes.js';
import { ticket } from '../lib/servers.js';
import { HOSTILE, OPERATOR, READER, adminPage, open, shows, signIn, stream } from './lib.js';

test('key is asked for, checked, and forgotten', async (t) => {
  const { tab, gateway } = await adminPage(t);
  await shows(tab, '#sign-in', 'API key');
  await signIn(tab, 'unknown');
  await shows(tab, '#sign-in-result', 'not known');
  await signIn(tab, 'key-that-publishes');
  await shows(tab, '#sign-in-result', 'scope admin');
  await signIn(tab, 'ä');
  await shows(tab, '#sign-in-result', 'ASCII');
  await signIn(tab, READER);
  await shows(tab, '#instance', 'Version');
  // A reload keeps the key, and no other tab has it.
  await tab.reload();
  await shows(tab, '#instance', 'Version');
  const other = await tab.context().newPage();
  await other.goto(gateway.admin + '/');
  await other.waitForSelector('#sign-in:not([hidden])');
  assert.ok(await other.isHidden('#app'));
  await tab.click('#sign-out');
  await tab.waitForSelector('#sign-in:not([hidden])');
  assert.equal(await tab.evaluate(() => sessionStorage.length + localStorage.length), 0);
  assert.ok(!(await tab.content()).includes(READER));
});

test('overview shows streams, servers, topics, gaps and rates', async (t) => {
  const { tab, gateway, redis, publish } = await adminPage(t);
  const one = await stream(t, gateway.events('anna', { topics: ['news'] }));
  await signIn(tab, READER);
  await shows(tab, '[data-tile=connections] .value', '1');
  await shows(tab, '#servers', `127.0.0.1:${redis.port}`);
  await shows(tab, '#servers', 'linked');
  await shows(tab, '#topics', 'news');
  await shows(tab, '#gaps', 'unknown-id');
  await shows(tab, '#state', 'ready');
  await shows(tab, '[data-tile=events] .note', 'in total');
  // The number of all events, with those of presence.
  const total = () => parseInt(document.querySelector('[data-tile=events] .note').textContent, 10);
  const before = await tab.evaluate(total);
  await publish('broadcast:news', 't', '1');
  await one.until('event: t');
  await tab.waitForFunction(
    (before) =>
      parseInt(document.querySelector('[data-tile=events] .note').textContent, 10) > before,
    before,
  );
  await tab.click('#topics a');
  await shows(tab, '#channel-facts', 'Events in the log');
  assert.equal(await tab.inputValue('#channel'), 'broadcast:news');
  await redis.process.kill('SIGKILL');
  await tab.click('.tabs [href="#overview"]');
  await shows(tab, '#state', 'redis-away');
  await shows(tab, '#servers', 'no link');
});

test('key without the scope operate changes nothing', async (t) => {
  const { tab, gateway } = await adminPage(t);
  await stream(t, gateway.events('anna'));
  await signIn(tab, READER);
  await shows(tab, '#read-only', 'Read-only');
  assert.ok(await tab.isVisible('#read-only'));
  await open(tab, 'users', { user: 'anna' });
  await shows(tab, '#user-facts', '1');
  assert.ok(await tab.isDisabled('#end'));
  await open(tab, 'publish');
  await shows(tab, '#publish-result', 'neither the scope');
  assert.ok(await tab.isDisabled('#publish'));
});

test('user is found and their sessions are ended', async (t) => {
  const { tab, gateway } = await adminPage(t);
  const opened = await stream(t, gateway.events('anna'));
  await stream(t, gateway.events('berta'));
  // The gateway reports it a moment later, and the page reads it once.
  const isOnline = async () => {
    const url = `${gateway.admin}/api/v1/connections?user=anna`;
    const answer = await fetch(url, { headers: { authorization: `Bearer ${READER}` } });
    return (await answer.json()).presence?.online;
  };
  await until(isOnline, 'anna does not come online');
  await signIn(tab, OPERATOR);
  await tab.click('.tabs [href="#users"]');
  await shows(tab, '#users', 'berta');
  await tab.fill('#prefix', 'an');
  await tab.press('#prefix', 'Enter');
  await shows(tab, '#users-count', '1');
  await tab.waitForFunction(() => document.querySelectorAll('#users > li').length === 1);
  await tab.click('#users a');
  await shows(tab, '#user-title', 'anna');
  await shows(tab, '#connections', 'stream');
  await shows(tab, '#user-facts', 'Onlineyes');
  await tab.click('#end');
  await tab.click('#confirm-no');
  assert.equal(await tab.textContent('#end-result'), '');
  await tab.click('#end');
  await tab.click('#confirm-yes');
  await shows(tab, '#end-result', 'were ended');
  await opened.until('revoked');
});

test('payloads are shown on request only', async (t) => {
  const { tab, publish } = await adminPage(t);
  const id = await publish('broadcast:prices', 't', 'secret-payload', 'KEEP', 'k');
  await signIn(tab, READER);
  const requests = [];
  tab.on('response', async (response) => {
    if (response.url().includes('/api/')) requests.push(response.text().catch(() => ''));
  });
  await tab.click('.tabs [href="#channel"]');
  await tab.fill('#channel', 'broadcast:prices');
  await tab.press('#channel', 'Enter');
  await shows(tab, '#log', id);
  await shows(tab, '#retained', 'k');
  await shows(tab, '#presence-text', 'receive this topic');
  await tab.click('#log a');
  await shows(tab, '#trace-report', 'in the log');
  assert.ok(!(await tab.content()).includes('secret-payload'));
  assert.ok(!(await Promise.all(requests)).join('').includes('secret-payload'));
  await tab.check('#trace-payloads');
  await shows(tab, '#trace-report pre', 'secret-payload');
  await tab.click('#trace-report a');
  await shows(tab, '#log', id);
  assert.ok(!(await tab.textContent('#view-channel')).includes('secret-payload'));
  await tab.check('#payloads');
  await shows(tab, '#log pre', 'secret-payload');
  await shows(tab, '#retained pre', 'secret-payload');
  await open(tab, 'channel', { name: 'broadcast:other' });
  await shows(tab, '#log', 'empty');
  assert.ok(!await tab.isChecked('#payloads'), 'another channel');
});

test('test event reaches a stream', async (t) => {
  const { tab, gateway } = await adminPage(t);
  const opened = await stream(t, gateway.events('anna'));
  await signIn(tab, OPERATOR);
  await tab.click('.tabs [href="#publish"]');
  await tab.fill('#publish-channel', 'user:anna:events');
  await tab.fill('#publish-type', 'probe');
  await tab.fill('#publish-payload', '{"big":12345678901234567890}');
  await tab.click('#publish');
  await shows(tab, '#publish-result', 'Published as');
  await opened.until('data: {"big":12345678901234567890}');
  await tab.fill('#publish-payload', 'text');
  await tab.click('#publish');
  await shows(tab, '#publish-result', 'not valid JSON');
});

test('hostile names and payloads are shown as text', async (t) => {
  const { tab, gateway, publish } = await adminPage(t);
  // Neither spaces nor braces are allowed in names.
  await stream(t, gateway.events(HOSTILE, { topics: [HOSTILE] }));
  await publish('broadcast:' + HOSTILE, HOSTILE, HOSTILE, 'KEEP', HOSTILE);
  await publish(`user:${HOSTILE}:events`, 't', '1');
  await signIn(tab, OPERATOR);
  await shows(tab, '#topics', HOSTILE);
  await open(tab, 'users');
  await shows(tab, '#users', HOSTILE);
  await tab.click('#users a');
  await shows(tab, '#user-title', HOSTILE);
  await shows(tab, '#connections', HOSTILE);
  await tab.click('#end');
  await shows(tab, '#confirm-title', HOSTILE);
  await tab.click('#confirm-yes');
  await shows(tab, '#end-result', HOSTILE);
  await open(tab, 'channel', { name: 'broadcast:' + HOSTILE });
  await shows(tab, '#log', HOSTILE);
  await tab.check('#payloads');
  await shows(tab, '#log pre', HOSTILE);
  await shows(tab, '#retained', HOSTILE);
  await tab.click('#log a');
  await shows(tab, '#trace-report', HOSTILE);
  await open(tab, 'trace', { id: HOSTILE });
  await shows(tab, '#trace-result', 'must be an event id');
  assert.equal(await tab.evaluate(() => window.hacked), undefined);
  assert.equal(await tab.locator('main img, main script').count(), 0);
  assert.deepEqual(tab.consoleErrors.filter((text) => !text.includes('400')), []);
});

test('page never shows a ticket', async (t) => {
  const { tab, gateway, publish } = await adminPage(t);
  const jwt = ticket('anna');
  await stream(t, `${gateway.url}/events?ticket=${jwt}`);
  await publish('user:anna:events', 't', '1');
  const bodies = [];
  tab.on('response', (response) => bodies.push(response.text().catch(() => '')));
  await signIn(tab, OPERATOR);
  await shows(tab, '#instance', 'Version');
  for (const [view, query, selector, text] of [
    ['users', { user: 'anna' }, '#connections', 'stream'],
    ['channel', { name: 'user:anna:events' }, '#log', 't'],
  ]) {
    await open(tab, view, query);
    await shows(tab, selector, text);
    assert.ok(!(await tab.content()).includes(jwt.split('.')[2]), view);
  }
  const all = (await Promise.all(bodies)).join('');
  assert.ok(all.includes('anna'));
  assert.ok(!all.includes(jwt.split('.')[2]) && !all.includes('eyJ'), 'a ticket in a response');
  assert.deepEqual(tab.consoleErrors, []);
});
