import assert from 'node:assert/strict';
import { test } from 'node:test';
import { address } from '../src/address.js';

test('absolute and relative, with and without a query of its own', () => {
  assert.equal(address({ url: 'https://x.example/events' }, '', { ticket: 'a.b' }), 'https://x.example/events?ticket=a.b');
  assert.equal(address({ url: '/events?tenant=7' }, '/poll', { ticket: 'a', wait: 0 }), '/events/poll?tenant=7&ticket=a&wait=0');
});

test('values are encoded, absent ones left out, no topics are not the same as all topics', () => {
  assert.equal(address({ url: '/e', topics: ['a', 'ü&'] }, '', { ticket: 't', lastEventId: undefined }), '/e?ticket=t&topics=a%2C%C3%BC%26');
  assert.equal(address({ url: '/e', topics: [] }, '', { ticket: 't' }), '/e?ticket=t&topics=');
});
