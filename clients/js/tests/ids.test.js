import assert from 'node:assert/strict';
import { test } from 'node:test';
import { after } from '../src/share/ids.js';

test('ids are ordered by epoch, then time, then sequence number', () => {
  for (const [id, other] of [
    ['2-0.a', '1-9.a'],
    ['10-0.a', '9-0.a'],
    ['1-10.a', '1-9.a'],
    ['1-0.b', '2-0.a'],
    ['1-0.10', '2-0.z'],
    ['1-0.a', '1-0.a!'],
    ['2-0.a!', '1-0.a'],
  ]) {
    assert.ok(after(id, other), `${id} ${other}`);
    assert.ok(!after(other, id), `${other} ${id}`);
  }
  assert.ok(!after('1-0.a', '1-0.a'));
});

test('invalid or missing ids count as later', () => {
  for (const [id, other] of [
    ['1-0.a', undefined],
    ['1-0.a', ''],
    ['1-0.a', 'x'],
    ['1-0.a', '1-0'],
    ['x', '1-0.a'],
    ['x', 'x'],
  ])
    assert.ok(after(id, other), `${id} ${other}`);
});
