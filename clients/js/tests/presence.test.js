// Who is online: the initial state, events before and after it, and gaps.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addChanges, hidesPresence, NONE, onlineUsers } from '../react/changes.js';
import { isSystem } from '../src/system.js';

const online = (initial, changes) => [...onlineUsers(initial, changes)].sort();

test('last event of a user decides, also over a later initial state', () => {
  const changes = addChanges(NONE, [['1', true], ['2', true], ['2', false]]);
  assert.deepEqual(online(undefined, changes), ['1']);
  assert.deepEqual(online(['2', '3'], changes), ['1', '3']);
  const later = addChanges(changes, [['3', false], ['2', true]]);
  assert.deepEqual(online(['2', '3'], later), ['1', '2']);
});

test('events before a gap do not count any more', () => {
  const before = addChanges(NONE, [['1', true], ['2', false]]);
  assert.deepEqual(online(['2'], addChanges(before, [['3', true], null, ['4', true]])), ['2', '4']);
  assert.ok(hidesPresence({ channels: [] }) && hidesPresence({ channels: ['broadcast:presence'] }));
  assert.ok(!hidesPresence({ channels: ['user:1:events', 'broadcast:*'] }));
});

test('presence events are no system events', () => {
  assert.deepEqual(['sse.gap', 'sse.connected', 'sse.other'].map(isSystem), [true, true, true]);
  assert.deepEqual(['sse.online', 'sse.offline', 'order'].map(isSystem), [false, false, false]);
});
