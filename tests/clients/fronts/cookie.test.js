// `tickets.session_cookie`: a session belongs to the browser that opened it. The page is on another origin than the gateway.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { shown, stand, state, tab, WAITS, whole } from '../lib/front.js';

for (const [name, withCredentials, wanted] of [['sends it resumes with the ticket that it has', true, 1], ['does not send it needs a new one', false, 2]]) {
  test(`a page that has the session's cookie and ${name}`, async (t) => {
    const { site, proxy, context, numbers } = await stand(t, { 'tickets.session_cookie': 'true' });
    const page = await tab(context, site, { url: `${proxy.url}/events`, withCredentials, ...WAITS });
    await state(page, 'open');
    await numbers.publish(3);
    proxy.cut();
    await shown(page, 'reconnecting', 1);
    await numbers.publish(3);
    await shown(page, 'open', 2);
    const { tickets } = await whole(page, await numbers.publish(1));
    assert.equal(tickets, wanted);
  });
}
