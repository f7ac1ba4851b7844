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
  response = () => Response.json({ token: 'x' });
  await assert.rejects(request(), /must return a non-empty string/);
  assert.equal(await request({ ticket: () => 'own' }), 'own');
});
