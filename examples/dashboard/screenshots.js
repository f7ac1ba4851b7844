// Creates docs/images/dashboard-{light,dark,phone}.png with Chromium, a gateway and real events.
//   node screenshots.js [--into FOLDER] [--tick 1000]
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { POINTS } from './shared/desk.js';
import { startEnvironment } from './tools/environment.js';

const { values } = parseArgs({
  options: {
    into: { type: 'string', default: path.resolve(import.meta.dirname, '../../docs/images') },
    // Interval between chart points, in ms. The screenshots wait until the charts are full.
    tick: { type: 'string', default: '1000' },
  },
});
const TIMEOUT = 120_000;
const SHOTS = [
  {
    name: 'light',
    colorScheme: 'light',
    viewport: { width: 1360, height: 700 },
    deviceScaleFactor: 1.4,
    fullPage: true,
  },
  {
    name: 'dark',
    colorScheme: 'dark',
    viewport: { width: 1360, height: 700 },
    deviceScaleFactor: 1.4,
    fullPage: true,
    bell: 'Bob',
  },
  {
    name: 'phone',
    colorScheme: 'light',
    viewport: { width: 390, height: 844 },
    deviceScaleFactor: 2,
    hasTouch: true,
    isMobile: true,
  },
];
/** Events published before the first screenshot, and before each one. */
const BEFORE = [
  ['alice', 'order'],
  ['bob', 'message'],
  ['all', 'message'],
  ['bob', 'order'],
  ['alice', 'payment'],
  ['bob', 'payment'],
  ['alice', 'order'],
  ['alice', 'payment'],
  ['bob', 'order'],
];
const MEANWHILE = [
  ['Message', 'everyone'],
  ['Order', 'Alice'],
  ['Payment', 'Bob'],
  ['Payment', 'Alice'],
  ['Order', 'Bob'],
];

async function takeScreenshot(browser, url, { name, fullPage, bell, ...look }) {
  const page = await browser.newPage({
    ...look,
    timezoneId: 'Europe/Berlin',
    reducedMotion: 'reduce',
  });
  page.setDefaultTimeout(TIMEOUT);
  await page.goto(url);
  await page.waitForFunction(
    () => document.querySelectorAll('.connection-status[data-state=open]').length === 2,
  );
  await page.waitForFunction(
    (points) =>
      [...document.querySelectorAll('[data-points]')].every(
        ({ dataset }) => Number(dataset.points) === points,
      ),
    POINTS,
  );
  for (const [kind, name] of MEANWHILE) {
    await page.getByRole('button', { name: `${kind} to ${name}`, exact: true }).click();
    await page
      .locator('.publish .result', { hasText: new RegExp(`To ${name}: ${kind}`, 'i') })
      .waitFor();
  }
  const unread = (count) =>
    page.waitForFunction(
      (count) =>
        [...document.querySelectorAll('.unread')].every(
          ({ textContent }) => Number(textContent) === count,
        ),
      count,
    );
  await unread(3);
  await page.evaluate(() => document.fonts.ready);
  await page.mouse.move(0, 0);
  await page.evaluate(() => { document.activeElement.blur(); scrollTo(0, 0); });
  if (bell) await page.getByRole('button', { name: `Notifications of ${bell}` }).click();
  const file = path.join(values.into, `dashboard-${name}.png`);
  await page.screenshot({ path: file, fullPage });
  console.log(path.relative('.', file));
  await page.close();
}

mkdirSync(values.into, { recursive: true });
const running = await startEnvironment({ tick: Number(values.tick) });
const browser = await chromium.launch({
  executablePath: process.env.SSE_GATEWAY_CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--hide-scrollbars'],
});
try {
  for (const [to, type] of BEFORE) {
    const response = await fetch(`${running.url}api/publish`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ to, type }),
    });
    if (!response.ok) throw new Error(await response.text());
  }
  for (const shot of SHOTS) await takeScreenshot(browser, running.url, shot);
} finally {
  await browser.close();
  await running.stop();
}
