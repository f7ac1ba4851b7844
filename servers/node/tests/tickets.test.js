// The gateway accepts what `ticket` signs, and `ticket` rejects what the gateway would.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SseError, SseGateway } from '../dist/index.js';
import { env, open, SECRET } from './lib.js';

const claimsOf = (ticket) => JSON.parse(Buffer.from(ticket.split('.')[1], 'base64url'));

test('a ticket has the claims that were requested', () => {
  const sse = new SseGateway({ secret: SECRET });
  const { iat, jti, ...claims } = claimsOf(sse.ticket({ user: '42' }));
  assert.ok(Math.abs(iat - Date.now() / 1000) < 30);
  assert.ok(jti.length > 20);
  assert.deepEqual(claims, { sub: '42', aud: 'sse-gateway', exp: iat + 30 });
  assert.notEqual(claimsOf(sse.ticket({ user: '42' })).jti, jti);

  const end = new Date(Date.now() + 3_600_000);
  const other = new SseGateway({
    secret: Buffer.from(SECRET), audience: 'a', issuer: 'i', keyId: 'k', maxTtl: 3600,
  });
  const made = other.ticket({
    user: '42', topics: [], filter: { a: ['b'] }, presence: true, ttl: 3600, sessionExpires: end,
  });
  const full = claimsOf(made);
  assert.deepEqual(full, {
    sub: '42', aud: 'a', iss: 'i', iat: full.iat, exp: full.iat + 3600, jti: full.jti, topics: [],
    filter: { a: ['b'] }, presence: true, session_exp: Math.floor(end / 1000),
  });
  const header = JSON.parse(Buffer.from(made.split('.')[0], 'base64url'));
  assert.deepEqual(header, { alg: 'HS256', typ: 'JWT', kid: 'k' });
});

test('the gateway accepts every claim', async (t) => {
  const sse = new SseGateway({ secret: SECRET });
  const { connected } = await open(t, env.SSE_TEST_GATEWAY, sse.ticket({
    user: 'a:b@c', topics: ['news', 'team-*', '*'], filter: { 'x-y_z.1': ['é', 'b'] },
    presence: true, ttl: 60, sessionExpires: Math.floor(Date.now() / 1000) + 60,
  }));
  assert.equal(connected.user, 'a:b@c');
});

const names = (count) => Array.from({ length: count }, (_, n) => `n${n}`);
const WRONG = {
  'bad-user': [
    { user: '' }, { user: 'a b' }, { user: 'a,b' }, { user: 'a*' }, { user: '{a}' },
    { user: 'a\\' }, { user: 'ä' }, { user: 'a\n' }, { user: 'x'.repeat(257) }, { user: 42 }, {},
  ],
  'bad-topics': [
    { topics: 'news' }, { topics: ['a b'] }, { topics: ['a*b'] }, { topics: [''] },
    { topics: names(257) }, { topics: [1] },
  ],
  'bad-filter': [
    { filter: {} }, { filter: null }, { filter: { a: 'b' } }, { filter: { a: [] } },
    { filter: { 'a b': ['c'] } }, { filter: { a: ['b c'] } }, { filter: { a: names(65) } },
    { filter: { a: ['ä'.repeat(129)] } },
    { filter: Object.fromEntries(names(9).map((name) => [name, ['a']])) },
  ],
  'bad-ttl': [{ ttl: 0 }, { ttl: 61 }, { ttl: 1.5 }, { ttl: NaN }],
  'bad-session-expires': [
    { sessionExpires: 1 }, { sessionExpires: Date.now() }, { sessionExpires: new Date('x') },
  ],
  'bad-option': [{ topic: ['news'] }, { session_exp: 1 }, { sub: undefined }],
  'ticket-too-long': [{ topics: names(256).map((name) => name + 'x'.repeat(60)) }],
};

for (const [code, tickets] of Object.entries(WRONG)) {
  test(`${code} is reported`, () => {
    const sse = new SseGateway({ secret: SECRET });
    for (const ticket of tickets)
      assert.throws(
        () => sse.ticket({ ...(code === 'bad-user' ? {} : { user: '42' }), ...ticket }),
        (error) => error instanceof SseError && error.code === code && !error.retriable,
        JSON.stringify(ticket),
      );
  });
}

test('a short or missing secret is reported', () => {
  const isBadSecret = { name: 'SseError', code: 'bad-secret' };
  assert.throws(() => new SseGateway({ secret: 'x'.repeat(31) }), isBadSecret);
  assert.throws(() => new SseGateway({ secret: '' }), isBadSecret);
  assert.throws(() => new SseGateway({}).ticket({ user: '42' }), isBadSecret);
  new SseGateway({ secret: 'ä'.repeat(16) });
});

test('publishing without a client is reported', async () => {
  await assert.rejects(new SseGateway({}).publishToUser('42', 'a', 1), { code: 'no-redis' });
});
