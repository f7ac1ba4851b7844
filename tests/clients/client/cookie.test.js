// `tickets.session_cookie` binds a session to the browser that opened it. The page and the gateway
// have different origins.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stateSeen, setUp, stateIs, tab, DELAYS, expectComplete } from '../lib/application.js';

const CASES = [
  ['page that sends the session cookie keeps its ticket', true, 1],
  ['page without the session cookie needs another ticket', false, 2],
];
for (const [name, withCredentials, expected] of CASES) {
  test(name, async (t) => {
    const { site, proxy, context, numbers } = await setUp(t, { 'tickets.session_cookie': 'true' });
    const page = await tab(context, site, {
      url: `${proxy.url}/events`,
      withCredentials,
      ...DELAYS,
    });
    await stateIs(page, 'open');
    await numbers.publish(3);
    proxy.cut();
    await stateSeen(page, 'reconnecting', 1);
    await numbers.publish(3);
    await stateSeen(page, 'open', 2);
    const { tickets } = await expectComplete(page, await numbers.publish(1));
    assert.equal(tickets, expected);
  });
}
