// The admin page with axe-core, on a phone and in dark mode, and with the keyboard.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { violations } from '../lib/axe.js';
import { OPERATOR, READER, adminPage, open, shows, signIn, stream } from './lib.js';

const LOOKS = {
  'on a desktop': {},
  'on a phone': { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true },
};
const LONG = 'x'.repeat(200);

for (const [name, look] of Object.entries(LOOKS)) {
  test(`axe-core finds no violations on the admin page: ${name}`, async (t) => {
    const { tab, gateway, publish } = await adminPage(t, { reducedMotion: 'reduce', ...look });
    const check = async (what, least) => {
      for (const colorScheme of ['light', 'dark']) {
        await tab.emulateMedia({ colorScheme });
        assert.deepEqual(await violations(tab, least), [], `${what}, ${colorScheme}`);
      }
      assert.ok(
        await tab.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth),
        `${what} scrolls horizontally`,
      );
      if (process.env.ADMIN_SHOTS) {
        const file = `${process.env.ADMIN_SHOTS}/${what}-${name.split(' ').at(-1)}`;
        await tab.screenshot({ path: `${file}-dark.png`, fullPage: true });
        await tab.emulateMedia({ colorScheme: 'light' });
        await tab.screenshot({ path: `${file}-light.png`, fullPage: true });
      }
    };
    await stream(t, gateway.events('anna', { topics: ['news', 'prices.*', LONG] }));
    await stream(t, gateway.events(LONG, { topics: ['news'] }));
    await publish('broadcast:news', 'headline', JSON.stringify({ text: LONG }), 'KEEP', 'top');
    const id = await publish('broadcast:news', 'headline', '{"text":"short"}');
    await check('sign-in');
    await signIn(tab, READER);
    await shows(tab, '[data-tile=events] .note', 'in total');
    await shows(tab, '#read-only', 'Read-only');
    await check('overview');
    await open(tab, 'users', { user: 'anna' });
    await shows(tab, '#users', LONG);
    await shows(tab, '#connections', 'prices');
    await check('users');
    await open(tab, 'channel', { name: 'broadcast:news' });
    await shows(tab, '#log', 'headline');
    await tab.check('#payloads');
    await shows(tab, '#log pre', LONG);
    await check('channel');
    await open(tab, 'trace', { id });
    await shows(tab, '#trace-report', 'in the log');
    await check('trace');
    await open(tab, 'publish');
    await shows(tab, '#publish-result', 'neither');
    await check('publish');
    await tab.click('#sign-out');
    await tab.waitForSelector('#sign-in:not([hidden])');
    await signIn(tab, OPERATOR);
    await open(tab, 'users', { user: 'anna' });
    await shows(tab, '#connections', 'prices');
    await tab.click('#end');
    await tab.waitForSelector('#confirm[open]');
    // Behind the dialog, the page is inert.
    await check('confirm', 5);
  });
}

test('admin page can be used with the keyboard', async (t) => {
  const { tab, gateway } = await adminPage(t);
  await stream(t, gateway.events('anna'));
  await tab.waitForFunction(() => document.activeElement.id === 'key');
  await tab.keyboard.type(OPERATOR);
  await tab.keyboard.press('Enter');
  await shows(tab, '#instance', 'Version');
  const press = async (name) => {
    for (let presses = 0; presses < 40; presses += 1) {
      if (await tab.evaluate(() => document.activeElement.textContent.trim()) === name) {
        await tab.keyboard.press('Enter');
        return;
      }
      await tab.keyboard.press('Tab');
    }
    assert.fail(`${name} was not focused`);
  };
  await press('Users');
  await shows(tab, '#users', 'anna');
  await press('anna');
  await tab.waitForFunction(() => document.activeElement.id === 'user-card');
  await press('End sessions…');
  await tab.waitForSelector('#confirm[open]');
  await tab.keyboard.press('Escape');
  await tab.waitForSelector('#confirm:not([open])', { state: 'attached' });
  assert.equal(await tab.textContent('#end-result'), '');
});
