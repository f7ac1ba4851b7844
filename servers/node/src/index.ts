export { SseError } from './errors.js';
export { Raw, raw, SseGateway } from './gateway.js';
export type { PublishOptions, SseGatewaySettings, Undelivered } from './gateway.js';
export type { Ioredis, NodeRedis, RedisClient } from './clients.js';
export type { Schema, Schemas } from './schemas.js';
export type { Ticket, TicketSettings } from './tickets.js';
