import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backoff } from '../src/backoff.js';

const settings = { retry: 1000, retryMax: 30_000 };

test('delay doubles up to the maximum, minus jitter', () => {
  const longest = [0, 1, 2, 3, 4, 5, 6, 1000, Infinity].map((n) => backoff(n, settings, () => 1));
  assert.deepEqual(longest, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000, 30_000]);
  const shortest = [0, 1, 5].map((n) => backoff(n, settings, () => 0));
  assert.deepEqual(shortest, [700, 1400, 21_000]);
});

test('delays of clients differ', () => {
  assert.ok(new Set(Array.from({ length: 20 }, () => backoff(3, settings))).size > 1);
});
