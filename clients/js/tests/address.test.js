import assert from 'node:assert/strict';
import { test } from 'node:test';
import { address } from '../src/address.js';

test('ticket is appended to absolute and relative URLs', () => {
  assert.equal(
    address({ url: 'https://x.example/events' }, '', { ticket: 'a.b' }),
    'https://x.example/events?ticket=a.b',
  );
  assert.equal(
    address({ url: '/events?tenant=7' }, '/poll', { ticket: 'a', wait: 0 }),
    '/events/poll?tenant=7&ticket=a&wait=0',
  );
});

test('undefined values are omitted, empty topics are kept', () => {
  assert.equal(
    address({ url: '/e', topics: ['a', 'ü&'] }, '', { ticket: 't', lastEventId: undefined }),
    '/e?ticket=t&topics=a%2C%C3%BC%26',
  );
  assert.equal(address({ url: '/e' }, '', { ticket: null, wait: 0 }), '/e?wait=0');
  assert.equal(address({ url: '/e', topics: [] }, '', { ticket: 't' }), '/e?ticket=t&topics=');
  assert.equal(
    address({ url: '/e', topics: ['team-*', 'a'] }, '', { ticket: 't' }),
    '/e?ticket=t&topics=team-*%2Ca',
  );
});
