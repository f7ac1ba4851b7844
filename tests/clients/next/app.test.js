// The app of examples/next in Chromium: notifications, dashboard, outbox, and what happens if the
// gateway fails.
import assert from 'node:assert/strict';
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
    assert.match(await activities(alice).first().textContent(), /Bob ordered a lamp$/);
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
    assert.equal(await tab.locator('[data-points]').getAttribute('data-points'), '20');
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
    await alice.route('**/api/orders', async (route) => {
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
    const data = { product: 'car' };
    const response = await alice.request.post(`${app.url}/api/orders`, { data });
    assert.equal(response.status(), 400);
    const signedOut = await (await app.device()).request.post(`${app.url}/api/sse-ticket`);
    assert.equal(signedOut.status(), 401);
  });
});
