// Accessibility of the dashboard: phone, dark mode, keyboard and screen reader, as far as axe-core
// can test.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { violations } from '../lib/axe.js';
import { counter, live, pane, publish, setUp, unread } from './lib.js';

const LOOKS = {
  'light': { colorScheme: 'light' },
  'dark': { colorScheme: 'dark' },
  'on a phone': {
    colorScheme: 'light',
    viewport: { width: 390, height: 844 },
    hasTouch: true,
    isMobile: true,
  },
  'on a phone, dark': {
    colorScheme: 'dark',
    viewport: { width: 390, height: 844 },
    hasTouch: true,
    isMobile: true,
  },
};
for (const [name, look] of Object.entries(LOOKS)) {
  test(`axe-core finds no violations: ${name}`, async (t) => {
    // Without transitions, which would change the measured colours.
    const { tab, gateway } = await setUp(t, { look: { reducedMotion: 'reduce', ...look } });
    assert.deepEqual(await violations(tab), []);
    for (const what of ['Order', 'Payment', 'Message']) await publish(tab, what, 'everyone');
    await unread(tab, 'bob', 3);
    await pane(tab, 'bob').getByRole('button', { name: /^Notifications/ }).click();
    await pane(tab, 'bob').locator('.panel').waitFor();
    assert.deepEqual(await violations(tab), []);
    const width = look.viewport?.width ?? 1280;
    assert.equal(
      await tab.evaluate(() => document.documentElement.scrollWidth),
      width,
      'the page scrolls horizontally',
    );
    await gateway.crash();
    await tab.waitForFunction(
      () => document.querySelectorAll('.entry[data-status=reconnecting]').length === 2,
    );
    assert.deepEqual(await violations(tab), []);
  });
}

test('every control is reachable by keyboard', async (t) => {
  const { tab } = await setUp(t);
  const focused = () =>
    tab.evaluate(
      () => document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent,
    );
  const tabTo = async (name) => {
    const passed = [];
    for (let presses = 0; presses < 40; presses += 1) {
      await tab.keyboard.press('Tab');
      const now = await focused();
      if (name.test(now)) {
        assert.ok(
          await tab.evaluate(
            () => getComputedStyle(document.activeElement).outlineStyle !== 'none',
          ),
          `no visible focus on ${now}`,
        );
        return;
      }
      passed.push(now);
    }
    assert.fail(`${name} was not focused, only: ${passed.join(' | ')}`);
  };

  await tabTo(/^Turn on browser notifications$|^Browser notifications/);
  await tabTo(/^Order to Alice$/);
  await tab.keyboard.press('Enter');
  await counter(tab, 'alice', 'order', 1);
  await tabTo(/^Message to everyone$/);
  await tab.keyboard.press('Space');
  await counter(tab, 'bob', 'message', 1);

  await unread(tab, 'alice', 2);
  await tabTo(/^Notifications of Alice, 2 unread$/);
  await tab.keyboard.press('Enter');
  await pane(tab, 'alice').locator('.panel').waitFor();
  assert.equal(
    await tab.evaluate(() => document.activeElement.getAttribute('aria-expanded')),
    'true',
  );
  await tabTo(/^Mark all as read$/);
  await tab.keyboard.press('Enter');
  await unread(tab, 'alice', 0);
  await tab.keyboard.press('Escape');
  assert.equal(await pane(tab, 'alice').locator('.panel').count(), 0);
  assert.match(await focused(), /^Notifications of Alice/);
  await tabTo(/^Activity of Alice$/);
  await tabTo(/^Notifications of Bob/);
});

test('screen reader announces events and connection changes', async (t) => {
  const { tab, gateway, restart } = await setUp(t);
  const announced = pane(tab, 'bob').getByRole('status');
  await publish(tab, 'Message', 'Bob');
  await announced.filter({ hasText: /^Bob: Message from .+: .+/ }).waitFor();
  await gateway.crash();
  await announced.filter({ hasText: 'Connection of Bob: Reconnecting' }).waitFor();
  await restart();
  await live(tab);
  await announced.filter({ hasText: 'Connection of Bob: Live' }).waitFor();
});
