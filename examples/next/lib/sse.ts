import Redis from 'ioredis';
import { SseGateway } from '@sse-gateway/backend';
import type { Events } from './events';

function connect() {
  // lazyConnect: `next build` loads this module, too.
  const options = { lazyConnect: true, maxRetriesPerRequest: 1 };
  const redis = new Redis(process.env.REDIS_URL ?? '', options);
  redis.on('error', (error) => console.error(`redis: ${error.message}`));
  return redis;
}

// `next dev` loads this module again after a change: keep the connection.
const kept = globalThis as { redis?: Redis };
kept.redis ??= connect();

export const sse = new SseGateway<Events>({ redis: kept.redis, secret: process.env.TICKET_SECRET });
