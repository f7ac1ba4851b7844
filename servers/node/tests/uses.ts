// Uses of the library that must compile, and others that must not. Never run.
import { Cluster, Redis } from 'ioredis';
import { createClient, createClientPool, createCluster, createSentinel } from 'redis';
import { raw, SseError, SseGateway, type RedisClient } from '@sse-gateway/backend';
import { z } from 'zod';

const options = { name: 'mymaster', sentinelRootNodes: [{ host: '127.0.0.1', port: 26379 }] };
const clients: RedisClient[] = [
  new Redis(),
  new Cluster([]),
  createClient(),
  createClient({ RESP: 3 }),
  createClientPool(),
  createCluster({ rootNodes: [] }),
  createSentinel(options),
];

type Events = { 'order-completed': { orderId: number } };

export async function uses(): Promise<void> {
  const any = new SseGateway({ redis: clients[0], secret: new Uint8Array(32) });
  await any.publish('user:42:events', 'anything', [1, null], { key: undefined });
  const sse = new SseGateway<Events>({ redis: clients[1] });
  await sse.publishToUser('42', 'order-completed', { orderId: 7 });
  await sse.publishToBroadcast('news', 'order-completed', raw('{"orderId":7}'));
  // @ts-expect-error The payload has another type.
  await sse.publishToUser('42', 'order-completed', { orderId: '7' });
  // @ts-expect-error The event does not exist.
  await sse.publishToUser('42', 'order-shipped', { orderId: 7 });
  // @ts-expect-error The option does not exist.
  await sse.publishToUser('42', 'order-completed', { orderId: 7 }, { ttl: 1 });
  // @ts-expect-error A ticket is for a user.
  sse.ticket({ topics: ['news'] });
  const schemas = { order: z.object({ n: z.number(), note: z.string().default('') }) };
  const checked = new SseGateway({ redis: clients[1], schemas });
  await checked.publishToUser('42', 'order', { n: 1 });
  // @ts-expect-error The payload does not match the schema.
  await checked.publishToUser('42', 'order', { n: '1' });
  // @ts-expect-error The event has no schema.
  await checked.publishToUser('42', 'orders', { n: 1 });
  const isRetriable: boolean = new SseError('code', 'message').retriable;
  console.log(isRetriable);
}
