// The page of `sse-gateway dev` with axe-core, on a phone, and with the keyboard.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { violations } from '../lib/axe.js';
import { demo, pasteAll, shows } from './lib.js';

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
