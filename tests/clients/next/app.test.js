// The app of examples/next in Chromium: notifications, dashboard, outbox, and what happens if the
// gateway fails.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { until } from '../lib/processes.js';
import { activities, bell, live, order, setUp } from './lib.js';

test('examples/next', async (t) => {
  const app = await setUp(t);
  const { client, gateway } = app;
  const [laptop, phone] = [await app.device(), await app.device()];
  const other = await app.device({ toastsStay: false });
  // Records the tones.
  await laptop.addInitScript(() => {
    window.tones = 0;
    const { start } = OscillatorNode.prototype;
    OscillatorNode.prototype.start = function count(...args) {
      window.tones += 1;
      return start.apply(this, args);
    };
  });
  const alice = await app.tab(laptop, 'Alice');
  const bob = await app.tab(other, 'Bob');
  const tones = () => alice.evaluate(() => window.tones);
  const keep = (type, data, key) =>
    client.fcall('sse_publish', 1, 'broadcast:dashboard', type, JSON.stringify(data), 'KEEP', key);

  await t.test('order notifies everyone with a toast and a sound', async () => {
    await order(bob, 'desk');
    const toast = (tab) => tab.getByRole('status').getByText('Bob ordered a desk');
    for (const tab of [alice, bob]) {
      await bell(tab, 1).waitFor();
    }
    await toast(alice).waitFor();
    await alice.getByRole('button', { name: 'Dismiss' }).click();
    await toast(alice).waitFor({ state: 'detached' });
    assert.equal(await tones(), 0, 'no sound before it is turned on');
    await bell(alice, 1).click();
    await alice.getByLabel('Sound').check();
    await alice.keyboard.press('Escape');
    await order(bob, 'lamp');
    await bell(alice, 2).waitFor();
    await alice.waitForFunction(() => window.tones > 0);
    assert.equal(await tones(), 1);
    await activities(alice).first().filter({ hasText: /Bob ordered a lamp$/ }).waitFor();
  });

  await t.test('new page reads the history, tabs and devices share the read state', async () => {
    const tabs = [alice, await app.tab(laptop), await app.tab(phone, 'Alice')];
    for (const tab of tabs) await bell(tab, 2).waitFor();
    await bell(alice, 2).click();
    await alice.getByRole('button', { name: 'Mark all as read' }).click();
    for (const tab of tabs) await bell(tab, 0).waitFor();
    await bell(bob, 2).waitFor();
    await order(bob, 'chair');
    for (const tab of tabs) await bell(tab, 1).waitFor();
    await tabs[1].reload();
    await bell(tabs[1], 1).waitFor();
    const devices = async () => (await gateway.metric('sse_connections')) === 3;
    await until(devices, 'the two tabs of a device do not share their connection');
    for (const tab of tabs.slice(1)) await tab.close();
  });

  await t.test('dashboard begins with the retained values and follows the events', async () => {
    await keep('counters', { visitors: 7, orders: 8, revenue: 9 }, 'counters');
    const at = new Date().toISOString();
    for (let id = 100; id < 115; id += 1)
      await keep('point', { id, at, visitors: id }, `point-${id % 20}`);
    const values = (tab) => tab.locator('dd').allTextContents();
    const shows = (tab, expected) => tab.waitForFunction(
      (text) => [...document.querySelectorAll('dd')].map((dd) => dd.textContent).join() === text,
      expected.join(),
    );
    await shows(alice, ['7', '8', '€9']);
    const tab = await app.tab(phone);
    await shows(tab, ['7', '8', '€9']);
    await tab.locator('[data-points="20"]').waitFor();
    app.startWorker();
    await tab.waitForFunction(() => document.querySelectorAll('dd')[1].textContent === '5');
    assert.deepEqual((await values(tab)).slice(1), ['5', '€670']);
    await tab.close();
  });

  await t.test('toast disappears by itself', async () => {
    await bob.getByRole('button', { name: 'Dismiss' }).waitFor({ state: 'detached' });
  });

  await t.test('command given offline is sent once when the network returns', async () => {
    const count = await activities(bob).count();
    await laptop.setOffline(true);
    await order(alice, 'lamp');
    await alice.getByText('1 waiting to be sent').waitFor();
    await laptop.setOffline(false);
    await alice.getByText('1 waiting to be sent').waitFor({ state: 'detached' });
    await activities(bob).nth(count).waitFor();

    // The server accepts the command, and its response is lost.
    let lost = 0;
    await alice.route(/\/api\/orders/, async (route) => {
      lost += 1;
      await route.fetch();
      await route.abort();
    }, { times: 1 });
    await order(alice, 'chair');
    await activities(bob).nth(count + 1).waitFor();
    await alice.getByText('1 waiting to be sent').waitFor({ state: 'detached' });
    assert.equal(lost, 1);
    await order(alice, 'desk');
    await activities(bob).filter({ hasText: 'Alice ordered a desk' }).nth(1).waitFor();
    assert.equal(await activities(bob).count(), count + 3, 'the repeated command stored nothing');
  });

  await t.test('login is shown when the session has ended', async () => {
    const tab = await app.tab(phone);
    await phone.clearCookies();
    assert.equal((await app.endStreams('alice')).status, 200);
    await tab.getByRole('button', { name: 'Sign in as Alice' }).waitFor();
    await tab.close();
    await order(bob, 'lamp');
    await bell(alice, 5).waitFor(); // still signed in, with a new ticket
  });

  await t.test('events published while the gateway is down arrive afterwards', async () => {
    await gateway.crash();
    await alice.locator('.connection-status[data-state=reconnecting]').waitFor();
    await order(bob, 'lamp');
    await app.restart();
    await live(alice);
    await bell(alice, 6).waitFor();
  });

  await t.test('command that the server refuses is not repeated', async () => {
    await alice.route(/\/api\/orders/, (route) => {
      const data = { ...route.request().postDataJSON(), product: 'car' };
      return route.continue({ postData: JSON.stringify(data) });
    }, { times: 1 });
    await order(alice, 'lamp');
    await alice.getByText('Order a lamp: This product is not available.').waitFor();
    await alice.getByText('1 waiting to be sent').waitFor({ state: 'detached' });
    const post = (options) =>
      alice.request.post(`${app.url}/api/orders?user=alice`, { ...options });
    assert.equal((await post({ data: { product: 'car' } })).status(), 400);
    // Any site can send a form.
    const form = { 'content-type': 'text/plain' };
    assert.equal((await post({ data: '{}', headers: form })).status(), 415);
  });
});

/** A ticket request with the cookies of a device. */
const requestTicket = (app, device, query) =>
  device.request.post(`${app.url}/api/sse-ticket${query}`);

test('login of examples/next', async (t) => {
  const app = await setUp(t);

  await t.test('page of a user gets and sends nothing as the next user', async () => {
    const device = await app.device();
    const [first, second, third] = [
      await app.tab(device, 'Alice'), await app.tab(device), await app.tab(device),
    ];
    await device.route(/\/api\/orders/, (route) => route.abort());
    await order(first, 'lamp');
    await first.getByText('1 waiting to be sent').waitFor();
    await second.getByRole('button', { name: 'Sign out Alice' }).click();
    await second.getByRole('button', { name: 'Sign in as Bob' }).click();
    await live(second);

    const refused = first.waitForResponse(/\/api\/orders/);
    await device.unroute(/\/api\/orders/);
    assert.equal((await refused).status(), 401);
    await first.getByRole('button', { name: 'Sign out Bob' }).waitFor();

    for (const [query, status] of [['?user=bob', 200], ['?user=alice', 401], ['', 401]])
      assert.equal((await requestTicket(app, device, query)).status(), status, query);
    await app.endStreams('alice');
    await third.getByRole('button', { name: 'Sign out Bob' }).waitFor();
    const stored = await app.query('SELECT user_id FROM events');
    assert.equal(stored.length, 2, 'the seed only');

    await first.getByRole('button', { name: 'Sign out Bob' }).click();
    await first.getByRole('button', { name: 'Sign in as Alice' }).click();
    await activities(first).nth(2).waitFor();
    assert.match(await activities(first).first().textContent(), /Alice ordered a lamp$/);
    await device.close();
  });

  await t.test('sessions expire, and their tokens are not stored', async () => {
    const device = await app.device();
    const tab = await app.tab(device, 'Alice');
    const [{ value: token }] = await device.cookies();
    const sessions = () => app.query('SELECT * FROM sessions');
    const expires = (await sessions()).at(-1).expires_at;
    assert.ok(!JSON.stringify(await sessions()).includes(token));
    const { ticket } = await (await requestTicket(app, device, '?user=alice')).json();
    const claims = JSON.parse(Buffer.from(ticket.split('.')[1], 'base64url'));
    assert.equal(claims.session_exp, Math.floor(expires.getTime() / 1000));

    await app.query("UPDATE sessions SET expires_at = now() - interval '1 second'");
    assert.equal((await requestTicket(app, device, '?user=alice')).status(), 401);
    await tab.reload();
    await tab.getByRole('button', { name: 'Sign in as Alice' }).click();
    await live(tab);
    assert.equal((await sessions()).length, 1, 'expired sessions are deleted');
  });

  await t.test('ids of orders have no gaps, also after repeated commands', async () => {
    const tab = await app.tab(await app.device(), 'Bob');
    const before = await app.query('SELECT max(id) AS id FROM events');
    const place = (command) => tab.request.post(`${app.url}/api/orders?user=bob`, {
      data: { command, product: 'desk' },
    });
    const [once, again] = [randomUUID(), randomUUID()];
    const responses = await Promise.all([once, once, once, again, again].map(place));
    assert.deepEqual(responses.map((response) => response.status()), Array(5).fill(202));
    const ids = (await app.query('SELECT id FROM events ORDER BY id')).map(({ id }) => id);
    assert.deepEqual(ids, ids.map((_, index) => index + 1));
    assert.equal(ids.length, before[0].id + 2);
    const [totals] = await app.query('SELECT orders, revenue::int FROM totals');
    const [sums] = await app.query(
      'SELECT count(*)::int AS orders, sum(amount)::int AS revenue FROM events');
    assert.deepEqual(totals, sums);
  });
});
