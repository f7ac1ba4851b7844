import assert from 'node:assert/strict';
import { test } from 'node:test';
import { START, step } from '../src/machine.js';

/** Model after a sequence of inputs. */
const after = (...inputs) => inputs.reduce((model, input) => step(model, input, 3), START);
/** State after each of the inputs. */
const states = (...inputs) => inputs.map((_, i) => after(...inputs.slice(0, i + 1)).state);

test('inputs lead to the documented states', () => {
  assert.equal(START.state, 'connecting');
  assert.deepEqual(states('failed', 'error', 'lost', 'connected'), [
    'connecting',
    'connecting',
    'connecting',
    'open',
  ]);
  assert.deepEqual(states('connected', 'lost', 'failed', 'connected'), [
    'open',
    'reconnecting',
    'reconnecting',
    'open',
  ]);
  assert.deepEqual(states('slow', 'answered', 'error', 'answered', 'connected'), [
    'connecting',
    'polling',
    'reconnecting',
    'polling',
    'open',
  ]);
  assert.deepEqual(states('connected', 'closed', 'lost', 'failed', 'answered', 'connected'), [
    'open',
    ...Array(5).fill('closed'),
  ]);
});

test('signed-out state only ends with a restart or close', () => {
  assert.deepEqual(states('connected', 'signed-out', 'lost', 'failed', 'answered', 'connected'), [
    'open',
    ...Array(5).fill('signed-out'),
  ]);
  assert.deepEqual(after('failed', 'error', 'signed-out', 'restarted').tries, 0);
  assert.deepEqual(states('signed-out', 'restarted', 'connected', 'signed-out', 'closed'), [
    'signed-out',
    'connecting',
    'open',
    'signed-out',
    'closed',
  ]);
});

test('unanswered or slow connections reach the failure limit', () => {
  assert.equal(after('failed', 'failed', 'failed').failures, 3);
  assert.equal(after('slow').failures, 3);
  assert.equal(after('failed', 'failed', 'lost', 'error').failures, 2);
  assert.equal(after('failed', 'failed', 'connected').failures, 0);
  assert.equal(
    after('slow', 'answered').failures,
    3,
    'a successful poll does not reset the stream failures',
  );
});

test('tries count all failures until a success', () => {
  assert.equal(after('failed', 'error', 'failed').tries, 3);
  assert.equal(after('failed', 'error', 'lost').tries, 2);
  assert.equal(after('failed', 'error', 'connected').tries, 0);
  assert.equal(after('failed', 'failed', 'slow', 'answered').tries, 0);
});
