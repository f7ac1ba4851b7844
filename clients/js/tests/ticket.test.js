import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from '../src/index.js';
import { newTicket, ticketFunction, TicketError } from '../src/ticket.js';

test('ticket function returns a string or a promise', async () => {
  assert.equal(await newTicket(() => 'a', 1000), 'a');
  assert.equal(await newTicket(async () => 'b', 1000), 'b');
});

test('without a ticket function, or if it returns null, there is no ticket', async () => {
  assert.equal(await newTicket(undefined, 1000), null);
  assert.equal(await newTicket(async () => null, 1000), null);
});

test('invalid, failed and pending tickets reject', async () => {
  for (const wrong of ['', undefined, 7, { ticket: 'x' }])
    await assert.rejects(
      newTicket(() => wrong, 1000),
      /must return a non-empty string/,
    );
  await assert.rejects(newTicket(() => { throw new Error('no backend'); }, 1000), /no backend/);
  await assert.rejects(newTicket(() => new Promise(() => {}), 1), /timed out/);
});

test('connect without url or with a ticket that is no function throws', () => {
  assert.throws(() => connect(), /connect\(\) needs/);
  assert.throws(() => connect({ url: '/events', ticket: 'x' }), /connect\(\) needs/);
  assert.throws(() => connect({ ticket: () => 'x' }), /connect\(\) needs/);
});

test('ticketUrl is requested with POST, and its errors have the status', async () => {
  const requests = [];
  let response = () => Response.json({ ticket: 'x' });
  const fetch = async (url, init) => {
    requests.push([url, init.method, init.cache, init.credentials]);
    return response();
  };
  const request = (options) =>
    newTicket(ticketFunction({ ticketUrl: '/api/sse-ticket', fetch, ...options }, 1000), 1000);
  assert.equal(await request(), 'x');
  assert.deepEqual(requests, [['/api/sse-ticket', 'POST', 'no-store', 'include']]);
  response = () => new Response('', { status: 401 });
  await assert.rejects(request(), (error) => error instanceof TicketError && error.status === 401);
  assert.equal(await request({ ticket: () => 'own' }), 'own');
});

/** The error of a ticket request whose response is this. */
const errorOf = async (respond) => {
  const options = { ticketUrl: '/api/sse-ticket', fetch: respond };
  return newTicket(ticketFunction(options, 1000), 1000).catch((error) => error);
};

test('redirect of the ticket endpoint, such as to a login page, is a 401', async () => {
  // In a browser, and in Node.
  const opaque = { type: 'opaqueredirect', ok: false, status: 0 };
  for (const response of [opaque, Response.redirect('http://site/login')]) {
    const modes = [];
    const error = await errorOf(async (_, { redirect }) => {
      modes.push(redirect);
      return response;
    });
    assert.ok(error instanceof TicketError, String(error));
    assert.equal(error.status, 401);
    assert.match(String(error), /^TicketError: the ticket endpoint redirected/);
    assert.deepEqual(modes, ['manual']);
  }
});

test('errors of ticketUrl name it, and the response that is expected', async (t) => {
  for (const body of ['{"token":"x"}', '{"ticket":""}', '{"ticket":7}', 'null', '<p>Log in</p>']) {
    const error = await errorOf(async () => new Response(body));
    assert.equal(String(error), 'TypeError: ticketUrl must respond with { "ticket": "…" }');
  }
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const pending = errorOf(() => new Promise(() => {}));
  t.mock.timers.tick(1000);
  const error = await pending;
  assert.match(error.message, /ticketUrl.* timed out/);
});
