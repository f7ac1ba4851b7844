import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect } from '../src/index.js';
import { newTicket } from '../src/ticket.js';

test('a string, or a promise of one', async () => {
  assert.equal(await newTicket(() => 'a', 1000), 'a');
  assert.equal(await newTicket(async () => 'b', 1000), 'b');
});

test('what is no ticket is an error, as is one that never comes', async () => {
  for (const wrong of ['', undefined, null, 7, { ticket: 'x' }]) await assert.rejects(newTicket(() => wrong, 1000), /must give a string/);
  await assert.rejects(newTicket(() => { throw new Error('no backend'); }, 1000), /no backend/);
  await assert.rejects(newTicket(() => new Promise(() => {}), 1), /does not end/);
});

test('without url or ticket connect() says so at once', () => {
  assert.throws(() => connect(), /connect\(\) needs/);
  assert.throws(() => connect({ url: '/events' }), /connect\(\) needs/);
  assert.throws(() => connect({ ticket: () => 'x' }), /connect\(\) needs/);
});
