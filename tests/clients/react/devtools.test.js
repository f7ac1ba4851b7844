// SseDevtools: what it shows, and accessibility.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { setUp } from './lib.js';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

test('devtools show events, gaps, errors and the state', async (t) => {
  const { client, tab, show, state, status, publish, opened } = await setUp(t, {
    settings: { 'server.heartbeat': '200ms' },
  });
  await show('Desk', { tags: ['a'], devtools: true });
  await status('open');
  const facts = async () => Object.fromEntries(await tab.$$eval('dl div', (rows) =>
    rows.map((row) => [...row.children].map(({ textContent }) => textContent))));
  const rows = () =>
    tab.$$eval('ol summary', (found) => found.map(({ textContent }) => textContent));
  const rowsAre = (...expected) => tab.waitForFunction(
    (expected) => expected === [...document.querySelectorAll('ol strong')]
      .map(({ textContent }) => textContent).join(),
    expected.join(),
  );
  await tab.click('button[aria-expanded=false]');
  await publish(1);
  await rowsAre('order', 'sse.connected');
  assert.match((await rows())[0], /^\d\d:\d\d:\d\d\.\d{3} order \{"n":1\}$/);
  await tab.click('summary:has-text("order")');
  assert.match(await tab.textContent('details[open] pre'), /^id: \d+-\d+\.\w+\n\{\n  "n": 1\n\}$/);

  await client.flushall();
  await rowsAre('sse.gap', 'order', 'sse.connected');
  assert.deepEqual(
    { ...await facts(), connection: '', url: '', 'last id': '' },
    {
      state: 'open', transport: 'SSE', url: '', user: '42', topics: '*', connection: '',
      'last id': '', reconnects: '0', gaps: '1',
    },
  );
  await tab.fill('input[placeholder]', 'order');
  await rowsAre('order');
  await tab.fill('input[placeholder]', 'heartbeat');
  await rowsAre();
  await tab.check('input[type=checkbox]');
  await tab.waitForFunction(() => document.querySelectorAll('ol li').length > 1);
  const violations = await tab.evaluate(async (code) => {
    (0, eval)(code);
    return (await window.axe.run('section')).violations;
  }, AXE);
  assert.deepEqual(violations, []);

  // The buttons.
  await tab.click('text=Clear');
  await tab.fill('input[placeholder]', 'error');
  await tab.click('section >> text=Close');
  await status('closed');
  state.signedOut = true;
  await tab.click('text=Reconnect');
  await status('signed-out');
  await rowsAre('error');
  assert.match((await rows())[0], /TicketError|401/);
  assert.equal(await opened(), 1);
  await tab.click('button[aria-expanded=true]');
  assert.equal(await tab.$('section'), null);
  assert.deepEqual(tab.consoleErrors.filter((text) => !text.includes('401')), []);
});
