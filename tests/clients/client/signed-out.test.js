// The ticket endpoint responds with 401: the stream stops, and continues after a login.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  DELAYS, expectComplete, received, seen, setUp, stateIs, tab,
} from '../lib/application.js';

const OPTIONS = { ticket: null, ticketUrl: '/api/sse-ticket', ...DELAYS };
const HOSTS = {
  'shared worker': { ...OPTIONS, share: 'user-42' },
  'leading tab': { ...OPTIONS, share: 'user-42', SharedWorker: null },
};

for (const [host, options] of Object.entries(HOSTS)) {
  test(`${host}: 401 signs all tabs out, login resumes`, { timeout: 120_000 }, async (t) => {
    const { context, site, url, numbers } = await setUp(t);
    const open = (more) => tab(context, site, { url, ...options, ...more });
    const pages = [await open(), await open()];
    for (const page of pages) await stateIs(page, 'open');
    await received(pages[0], await numbers.publish(1));
    const { lastEventId } = await seen(pages[0]);

    site.signedOut = true;
    await pages[0].evaluate(() => window.stream.reconnect());
    for (const page of pages) {
      await stateIs(page, 'signed-out');
      assert.match((await seen(page)).errors.at(-1), /^TicketError: .* responded with 401$/);
    }
    const { tickets } = site;
    await numbers.publish(3);
    // Becoming visible, or an event name that is new, causes no request.
    await pages[1].bringToFront();
    await pages[1].evaluate(() => window.stream.on('other', () => {}));
    assert.equal(site.tickets, tickets);

    // A tab that is opened after the login.
    site.signedOut = false;
    pages.push(await open({ lastEventId }));
    for (const page of pages) await stateIs(page, 'open');
    const last = await numbers.publish(1);
    for (const page of pages.slice(0, 2)) await expectComplete(page, last);
    await expectComplete(pages[2], last, 2);

    // A tab that needs a ticket of its own to catch up. The others stay connected.
    site.signedOut = true;
    site.login = '/login';
    const late = await open({ lastEventId });
    await stateIs(late, 'signed-out');
    assert.match((await seen(late)).errors.join(), /^TicketError: .* redirected the request$/);
    await stateIs(pages[0], 'open');
    site.signedOut = false;
    await late.evaluate(() => window.stream.reconnect());
    await expectComplete(late, await numbers.publish(1), 2);
  });
}
