// Accessibility of the Next.js app: phone, dark mode and keyboard, as far as axe-core can test.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { violations } from '../lib/axe.js';
import { bell, order, setUp } from './lib.js';

const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true };

test('accessibility of examples/next', async (t) => {
  const app = await setUp(t);

  for (const [name, look] of Object.entries({
    'light': { colorScheme: 'light' },
    'on a phone, dark': { ...PHONE, colorScheme: 'dark' },
  })) {
    await t.test(`axe-core finds no violations: ${name}`, async () => {
      const device = await app.device(look);
      const signIn = await device.newPage();
      await signIn.goto(app.url);
      await signIn.getByRole('button', { name: 'Sign in as Alice' }).waitFor();
      assert.deepEqual(await violations(signIn), []);
      await signIn.close();

      const tab = await app.tab(device, 'Alice');
      await order(tab, 'lamp');
      await tab.getByRole('button', { name: 'Dismiss' }).waitFor();
      await tab.getByRole('button', { name: /^Notifications/ }).click();
      await tab.getByRole('button', { name: 'Mark all as read' }).waitFor();
      assert.deepEqual(await violations(tab), []);
      assert.equal(
        await tab.evaluate(() => document.documentElement.scrollWidth),
        look.viewport?.width ?? 1280,
        'the page scrolls horizontally',
      );
      assert.deepEqual(tab.consoleErrors, []);
      await device.close();
    });
  }

  await t.test('every control is reachable by keyboard', async () => {
    const tab = await app.tab(await app.device(), 'Bob');
    const focused = () => tab.evaluate(() => {
      const { activeElement: element } = document;
      const { outlineStyle } = getComputedStyle(element);
      const name = element.getAttribute('aria-label') ?? element.textContent;
      return { name: name || element.parentElement.textContent.trim(), outlineStyle };
    });
    const tabTo = async (expected) => {
      for (let presses = 0; presses < 20; presses += 1) {
        await tab.keyboard.press('Tab');
        const { name, outlineStyle } = await focused();
        if (!expected.test(name)) continue;
        assert.notEqual(outlineStyle, 'none', `no visible focus on ${name}`);
        return;
      }
      assert.fail(`${expected} was not focused`);
    };
    await bell(tab, 2).waitFor();
    await tabTo(/^Order a desk/);
    await tab.keyboard.press('Enter');
    await bell(tab, 3).waitFor();
    await tabTo(/^Notifications, 3 unread$/);
    await tab.keyboard.press('Enter');
    await tabTo(/^Sound$/);
    await tabTo(/^Mark all as read$/);
    await tab.keyboard.press('Enter');
    await bell(tab, 0).waitFor();
    await tab.keyboard.press('Escape');
    await tab.getByRole('button', { name: 'Mark all as read' }).waitFor({ state: 'hidden' });
    await tabTo(/^Dismiss$/);
    await tab.keyboard.press('Enter');
    await tabTo(/^Sign out Bob$/);
    await tab.keyboard.press('Enter');
    await tab.getByRole('button', { name: 'Sign in as Bob' }).waitFor();
    assert.deepEqual(tab.consoleErrors, []);
  });
});
