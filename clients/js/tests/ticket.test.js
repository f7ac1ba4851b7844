import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from '../src/index.js';
import { newTicket } from '../src/ticket.js';

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
