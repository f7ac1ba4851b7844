import assert from 'node:assert/strict';
import { test } from 'node:test';
import { after } from '../src/share/ids.js';

test('ids are ordered by time, then sequence number', () => {
  assert.ok(after('2-0', '1-9'));
  assert.ok(after('10-0', '9-0'));
  assert.ok(after('1-10', '1-9'));
  for (const [id, other] of [
    ['1-0', '1-0'],
    ['1-0', '1-1'],
    ['9-5', '10-0'],
  ])
    assert.ok(!after(id, other), `${id} ${other}`);
});

test('invalid or missing ids count as later', () => {
  for (const [id, other] of [
    ['1-0', undefined],
    ['1-0', ''],
    ['1-0', 'x'],
    ['x', '1-0'],
    ['x', 'x'],
  ])
    assert.ok(after(id, other), `${id} ${other}`);
});
