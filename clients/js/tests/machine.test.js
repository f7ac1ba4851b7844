import assert from 'node:assert/strict';
import { test } from 'node:test';
import { START, step } from '../src/machine.js';

/** The model after these inputs. */
const after = (...inputs) => inputs.reduce((model, input) => step(model, input, 3), START);
/** The states that are shown on the way. */
const states = (...inputs) => inputs.map((_, i) => after(...inputs.slice(0, i + 1)).state);

test('states', () => {
  assert.equal(START.state, 'connecting');
  assert.deepEqual(states('failed', 'hitch', 'lost', 'connected'), ['connecting', 'connecting', 'connecting', 'open']);
  assert.deepEqual(states('connected', 'lost', 'failed', 'connected'), ['open', 'reconnecting', 'reconnecting', 'open']);
  assert.deepEqual(states('slow', 'answered', 'hitch', 'answered', 'connected'), ['connecting', 'polling', 'reconnecting', 'polling', 'open']);
  assert.deepEqual(states('connected', 'closed', 'lost', 'failed', 'answered', 'connected'), ['open', ...Array(5).fill('closed')]);
});

test('three connects without an answer, or one that takes too long, are the limit; what worked and has ended is no failure', () => {
  assert.equal(after('failed', 'failed', 'failed').failures, 3);
  assert.equal(after('slow').failures, 3);
  assert.equal(after('failed', 'failed', 'lost', 'hitch').failures, 2);
  assert.equal(after('failed', 'failed', 'connected').failures, 0);
  assert.equal(after('slow', 'answered').failures, 3, 'a poll that is answered says nothing of streams');
});

test('the back-off counts failures of any kind, and begins anew when anything works', () => {
  assert.equal(after('failed', 'hitch', 'failed').tries, 3);
  assert.equal(after('failed', 'hitch', 'lost').tries, 2);
  assert.equal(after('failed', 'hitch', 'connected').tries, 0);
  assert.equal(after('failed', 'failed', 'slow', 'answered').tries, 0);
});
