import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backoff } from '../src/backoff.js';

const settings = { retry: 1000, retryMax: 30_000 };

test('min(1 s x 2^n, 30 s), of which up to 30 % are taken off', () => {
  const most = [0, 1, 2, 3, 4, 5, 6, 1000, Infinity].map((n) => backoff(n, settings, () => 1));
  assert.deepEqual(most, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000, 30_000]);
  const least = [0, 1, 5].map((n) => backoff(n, settings, () => 0));
  assert.deepEqual(least, [700, 1400, 21_000]);
});

test('two clients do not wait alike', () => {
  assert.ok(new Set(Array.from({ length: 20 }, () => backoff(3, settings))).size > 1);
});
