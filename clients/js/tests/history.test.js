import assert from 'node:assert/strict';
import { test } from 'node:test';
import { history } from '../src/history.js';

const OPTIONS = { url: 'https://x.example/events', channel: 'user:1:events', ticket: () => 'jwt' };

/** A `fetch` that returns these pages in turn, and keeps the queries. */
function pages(...answers) {
  const queries = [];
  const fetch = async (url) => {
    const { pathname, searchParams } = new URL(url);
    assert.equal(pathname, '/events/history');
    queries.push(Object.fromEntries(searchParams));
    const { status = 200, ...body } = answers[queries.length - 1];
    const headers = new Headers({ 'retry-after': '3' });
    return { ok: status < 300, status, headers, json: async () => body };
  };
  return { fetch, queries };
}

const page = (events, next, lastEventId = null) => ({ events, next, lastEventId });

test('all pages are read, and the position to continue from', async () => {
  const { fetch, queries } = pages(
    page([{ id: '1-0.a', type: 'order', data: '{"n":1}' }], '1-0.0'),
    page([], '5-0.0'),
    page([{ id: '6-0.a', type: 'note', data: 'text' }], null, '9-0.a'),
  );
  let tickets = 0;
  const ticket = () => `jwt${++tickets}`;
  const found = await history({ ...OPTIONS, ticket, since: '1d', until: '9-0.a', fetch });
  assert.deepEqual(found, {
    events: [
      { id: '1-0.a', type: 'order', text: '{"n":1}', data: { n: 1 }, retained: false },
      { id: '6-0.a', type: 'note', text: 'text', data: 'text', retained: false },
    ],
    lastEventId: '9-0.a',
  });
  const common = { ticket: 'jwt1', channel: 'user:1:events', until: '9-0.a', limit: '1000' };
  assert.deepEqual(queries, [
    { ...common, since: '1d' },
    { ...common, after: '1-0.0' },
    { ...common, after: '5-0.0' },
  ]);
});

test('refusal has status, code and delay', async () => {
  const { fetch } = pages({ status: 429, error: 'too-often', message: 'later' });
  await assert.rejects(history({ ...OPTIONS, fetch }), {
    message: 'refused with 429: too-often: later',
    status: 429,
    code: 'too-often',
    retryAfter: 3000,
  });
});
