// What the library publishes is what the gateway delivers, with every client.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { before, test } from 'node:test';
import { z } from 'zod';
import { tcpProxy } from '../../../tests/clients/lib/processes.js';
import { raw, SseError, SseGateway } from '../dist/index.js';
import { CLIENTS, CLUSTER_CLIENTS, env, open, SECRET } from './lib.js';

const ID = /^\d+-\d+\.[0-9a-z]+$/;

const code = (expected, retriable) => (error) => {
  assert.ok(error instanceof SseError, String(error.stack));
  assert.equal(error.code, expected, error.message);
  assert.equal(error.retriable, retriable);
  return true;
};

/** An event that nobody sees: its channel and id. It becomes undelivered while other tests run. */
const unseen = { channel: `user:${randomUUID()}:events`, id: '' };
before(async () => {
  const ends = [];
  const redis = await CLIENTS.ioredis({ after: (end) => ends.push(end) }, env.SSE_TEST_REDIS);
  const sse = new SseGateway({ redis });
  unseen.id = await sse.publish(unseen.channel, 'shipped', { orderId: 7 }, { unseen: '1s' });
  for (const end of ends) end();
});

for (const [name, connect] of Object.entries(CLIENTS)) {
  test(`${name}: events arrive as published`, async (t) => {
    const redis = await connect(t, env.SSE_TEST_REDIS);
    const sse = new SseGateway({ redis, secret: SECRET });
    // Other files publish to the same server at the same time.
    const [user, topic] = [randomUUID(), randomUUID()];
    const ticket = sse.ticket({ user, topics: [topic], filter: { region: ['eu'] } });
    const stream = await open(t, env.SSE_TEST_GATEWAY, ticket);
    assert.deepEqual(stream.connected.user, user);
    assert.deepEqual(stream.connected.topics, [topic]);

    const key = `${user}-completed`;
    const id = await sse.publishToUser(user, 'order-completed', { total: 1.5 }, { key });
    assert.match(id, ID);
    assert.deepEqual(await stream.next(), { id, event: 'order-completed', data: '{"total":1.5}' });
    assert.equal(await sse.publishToUser(user, 'order-completed', { total: 2 }, { key }), id);

    const text = 'not "JSON"';
    const second = await sse.publish(`user:${user}:events`, 'text', raw(text), { retry: 1234 });
    const expected = { id: second, retry: '1234', event: 'text', data: text };
    assert.deepEqual(await stream.next(), expected);

    await sse.publishToBroadcast(topic, 'filtered', 1, { tags: { region: 'us' } });
    await sse.publishToBroadcast('other', 'not-permitted', 1);
    const broadcast = await sse.publishToBroadcast(topic, 'headline', ['a'], {
      tags: { region: 'eu', team: 'x=y' },
    });
    assert.deepEqual(await stream.next(), { id: broadcast, event: 'headline', data: '["a"]' });

    assert.equal(await sse.publishToUser(user, 'typing', null, { ephemeral: true }), '');
    assert.deepEqual(await stream.next(), { event: 'typing', data: 'null' });

    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    const traced = await sse.publishToUser(user, 'traced', 1, { traceparent });
    assert.deepEqual(await stream.next(), { id: traced, event: 'traced', data: '1' });
    await sse.publishToUser(user, 'untraced', 1, { traceparent: '' });
    const malformed = sse.publishToUser(user, 'traced', 1, { traceparent: 'x' });
    await assert.rejects(malformed, { code: 'bad-traceparent' });
  });

  test(`${name}: kept values are delivered to new streams`, async (t) => {
    const redis = await connect(t, env.SSE_TEST_REDIS);
    const sse = new SseGateway({ redis, secret: SECRET });
    const user = randomUUID();
    await sse.publishToUser(user, 'price', 1, { keep: 'btc' });
    await sse.publishToUser(user, 'price', 2, { keep: 'btc' });
    await sse.publishToUser(user, 'price', 3, { keep: 'eth' });
    await sse.publishToUser(user, 'price', null, { forget: 'eth' });
    const stream = await open(t, env.SSE_TEST_GATEWAY, sse.ticket({ user, topics: [] }));
    const snapshot = await stream.next();
    assert.equal(snapshot.event, 'sse.snapshot');
    assert.deepEqual((await stream.next()).data, '2');
    await sse.publishToUser(user, 'end', 1);
    assert.deepEqual((await stream.next()).event, 'end');
  });

  test(`${name}: undelivered events are read and acknowledged`, async (t) => {
    const redis = await connect(t, env.SSE_TEST_REDIS);
    const sse = new SseGateway({ redis });
    const group = randomUUID();
    const found = [];
    while (found.length === 0) {
      const events = await sse.undelivered(group, 'first');
      found.push(...events.filter(({ channel }) => channel === unseen.channel));
      if (events.length === 0) await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const [{ entry, ...event }] = found;
    assert.deepEqual(event, { ...unseen, type: 'shipped', payload: '{"orderId":7}' });
    // Another consumer gets it after `idle`, and nobody after it was acknowledged.
    const mine = (event) => event.entry === entry;
    assert.ok((await sse.undelivered(group, 'second', { idle: 0 })).some(mine));
    await sse.acknowledge(group, ...found);
    assert.ok(!(await sse.undelivered(group, 'second', { idle: 0 })).some(mine));
  });

  test(`${name}: errors have codes`, async (t) => {
    const redis = await connect(t, env.SSE_TEST_REDIS);
    const sse = new SseGateway({ redis });
    await assert.rejects(sse.publishToUser('42', 'a', 1, { Key: 'k' }), (error) => {
      assert.equal(error.message, 'the option "Key" does not exist');
      return code('bad-option', false)(error);
    });
    const large = 'x'.repeat(70_000);
    await assert.rejects(sse.publishToUser('42', 'a', large), code('too-large', false));
    await assert.rejects(sse.publishToUser('42', 'sse.a', 1), code('reserved-type', false));
    const both = { ephemeral: true, key: 'k' };
    await assert.rejects(sse.publishToUser('42', 'a', 1, both), code('bad-ephemeral', false));
    await assert.rejects(sse.publishToUser('4 2', 'a', 1), code('bad-user', false));
    await assert.rejects(sse.publishToBroadcast('a*', 'a', 1), code('bad-channel', false));
    await assert.rejects(sse.publish('news', 'a', 1), code('bad-channel', false));
    await assert.rejects(sse.publishToUser('42', 'a', undefined), code('bad-payload', false));
    await assert.rejects(sse.publishToUser('42', 'a', 1n), code('bad-payload', false));
    const cycle = {};
    cycle.itself = cycle;
    await assert.rejects(sse.publishToUser('42', 'a', cycle), code('bad-payload', false));
    const absent = new SseGateway({ redis, keyPrefix: 'absent:', retryFor: 0 });
    await assert.rejects(absent.publishToUser('42', 'a', 1), code('not-loaded', true));
    await redis.set('sse:log:{user:broken:events}', '1');
    await assert.rejects(sse.publishToUser('broken', 'a', 1), code('wrong-type', false));
  });

  test(`${name}: an unadopted server is a temporary error`, async (t) => {
    const redis = await connect(t, env.SSE_TEST_UNADOPTED);
    const sse = new SseGateway({ redis, retryFor: 0 });
    await assert.rejects(sse.publishToUser('42', 'a', 1), code('not-adopted', true));
  });

  test(`${name}: prefixes`, async (t) => {
    const redis = await connect(t, env.SSE_TEST_REDIS);
    const sse = new SseGateway({
      redis, secret: SECRET, keyPrefix: 'shop-1:', channelPrefix: 'shop:', retryFor: 0,
    });
    const user = randomUUID();
    const ticket = sse.ticket({ user, topics: ['*'] });
    const stream = await open(t, env.SSE_TEST_PREFIXED_GATEWAY, ticket);
    const first = await sse.publishToUser(user, 'a', 1);
    assert.equal((await stream.next()).id, first);
    const second = await sse.publish('{broadcast}:news', 'a', 1);
    assert.equal((await stream.next()).id, second);
    assert.deepEqual(await sse.undelivered(randomUUID(), 'c'), []);
  });
}

test('payloads must match their schemas', async (t) => {
  const redis = await CLIENTS.ioredis(t, env.SSE_TEST_REDIS);
  const order = z.object({ orderId: z.number(), note: z.string().default('-') });
  const later = z.number().refine(async (n) => n > 0, 'too low');
  const sse = new SseGateway({ redis, secret: SECRET, schemas: { order, later } });
  const user = randomUUID();
  const stream = await open(t, env.SSE_TEST_GATEWAY, sse.ticket({ user, topics: [] }));
  await assert.rejects(sse.publishToUser(user, 'order', { orderId: '7' }), (error) => {
    assert.match(error.message, /^the payload of order does not match its schema: orderId: /);
    return code('bad-payload', false)(error);
  });
  await assert.rejects(sse.publishToUser(user, 'later', 0), /schema: too low$/);
  await sse.publishToUser(user, 'order', { orderId: 7 });
  assert.equal((await stream.next()).data, '{"orderId":7}');
  await sse.publishToUser(user, 'order', raw('1'));
  await sse.publishToUser(user, 'later', 1);
  await sse.publishToUser(user, 'toString', 2);
  for (const data of ['1', '1', '2']) assert.equal((await stream.next()).data, data);
});

for (const [name, connect] of Object.entries(CLUSTER_CLIENTS)) {
  test(`${name} on a cluster`, async (t) => {
    const redis = await connect(t);
    const sse = new SseGateway({ redis, secret: SECRET });
    // Their slots are on all masters.
    for (const user of ['1', '2', '3', '4', '5', '6'].map((n) => n + randomUUID())) {
      const ticket = sse.ticket({ user, topics: ['news'] });
      const stream = await open(t, env.SSE_TEST_CLUSTER_GATEWAY, ticket);
      await sse.publishToUser(user, 'a', 1, { key: 'k', keep: 'x' });
      assert.equal((await stream.next()).event, 'a');
      await sse.publishToBroadcast('news', 'b', 2);
      assert.equal((await stream.next()).event, 'b');
    }
    await assert.rejects(sse.publishToUser('42', 'sse.a', 1), code('reserved-type', false));
    assert.deepEqual(await sse.undelivered('emails', 'one'), []);
  });
}

test('a client of one node reports that the slot is elsewhere', async (t) => {
  const nodes = env.SSE_TEST_CLUSTER.split(',');
  let moved = 0;
  for (const node of nodes) {
    const redis = await CLIENTS.ioredis(t, `redis://${node}`);
    const sse = new SseGateway({ redis, retryFor: 0 });
    await sse.publishToUser('42', 'a', 1).catch((error) => {
      code('redis-away', true)(error);
      assert.match(error.message, /^MOVED /);
      moved += 1;
    });
  }
  assert.equal(moved, 2);
});

test('lost connections are retried if nothing can happen twice', async (t) => {
  const proxy = await tcpProxy(t, Number(new URL(env.SSE_TEST_REDIS).port));
  const options = { maxRetriesPerRequest: 0, autoResendUnfulfilledCommands: false };
  const redis = await CLIENTS.ioredis(t, `redis://127.0.0.1:${proxy.port}`, options);
  const sse = new SseGateway({ redis, retryFor: 20_000 });
  await sse.publishToUser('42', 'a', 1);
  proxy.cut();
  await assert.rejects(sse.publishToUser('42', 'a', 1), code('redis-away', false));
  const group = randomUUID();
  const published = sse.publishToUser('42', 'a', 1, { key: randomUUID() });
  const read = sse.undelivered(group, 'c');
  const acknowledged = sse.acknowledge(group, { entry: '1-1' });
  let settled = 0;
  for (const call of [published, read, acknowledged]) call.finally(() => { settled += 1; });
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.equal(settled, 0);
  await proxy.restore();
  assert.match(await published, ID);
  assert.ok(Array.isArray(await read));
  await acknowledged;
  proxy.cut();
  const impatient = new SseGateway({ redis, retryFor: 0 });
  const again = impatient.publishToUser('42', 'a', 1, { key: 'k' });
  await assert.rejects(again, code('redis-away', true));
});

// Last: it ends the state in which the server is not adopted.
test('publishing succeeds as soon as a gateway has adopted the server', async (t) => {
  const redis = await CLIENTS.ioredis(t, env.SSE_TEST_UNADOPTED);
  const sse = new SseGateway({ redis, retryFor: 30_000 });
  const published = sse.publishToUser('42', 'a', 1);
  process.kill(Number(env.SSE_TEST_STOPPED_GATEWAY), 'SIGCONT');
  assert.match(await published, ID);
});
