import { createHmac, randomUUID } from 'node:crypto';
import { SseError } from './errors.js';
import { checkFilter, checkTopics, checkUser, rejectOthers } from './names.js';

const MIN_SECRET_BYTES = 32;
const MAX_TICKET_BYTES = 8192;
const DEFAULT_TTL = 30;

/** What a ticket permits. */
export interface Ticket {
  /** The user, whose channel is `user:<user>:events`. */
  user: string;
  /** Topics of broadcasts: names, `prefix*` or `*`. Default: `tickets.default_topics`. */
  topics?: readonly string[] | undefined;
  /** Only events whose tags have one of these values; events without the tag pass. */
  filter?: Readonly<Record<string, readonly string[]>> | undefined;
  /** Whether the ticket also gets the events of presence. */
  presence?: boolean | undefined;
  /** Within which time the first connection must be made, in seconds. Default: 30. */
  ttl?: number | undefined;
  /** When the stream ends, at the latest: a date, or seconds since 1970. */
  sessionExpires?: Date | number | undefined;
}

export interface TicketSettings {
  /** `tickets.secret` of the gateway, 32 bytes or more. */
  secret: string | Uint8Array;
  /** `tickets.audience` of the gateway. Default: `sse-gateway`. */
  audience?: string | undefined;
  /** `tickets.issuer` of the gateway. */
  issuer?: string | undefined;
  /** The `kid` of the secret, if the gateway has several keys. */
  keyId?: string | undefined;
  /** `tickets.max_ttl` of the gateway, in seconds. Default: 60. */
  maxTtl?: number | undefined;
}

export function checkSecret(secret: string | Uint8Array) {
  if (Buffer.from(secret as string).length < MIN_SECRET_BYTES)
    throw new SseError('bad-secret', 'secret must have at least 32 bytes');
}

function lifetime(ttl: number, max: number): number {
  if (!Number.isInteger(ttl) || ttl < 1 || ttl > max)
    throw new SseError(
      'bad-ttl', `ttl must be an integer number of seconds from 1 to ${max} (got ${ttl})`);
  return ttl;
}

function sessionEnd(end: Date | number, now: number): number {
  const seconds = Math.floor(end instanceof Date ? end.getTime() / 1000 : end);
  // A number of milliseconds would be a date in a distant future.
  if (!(seconds > now && seconds < 1e11))
    throw new SseError('bad-session-expires',
      `sessionExpires must be a date in the future, or its seconds since 1970 (got ${end})`);
  return seconds;
}

/** Signs a ticket (a JWT, HS256). */
export function sign(ticket: Ticket, settings: TicketSettings): string {
  const {
    user, topics, filter, presence, ttl = DEFAULT_TTL, sessionExpires, ...others
  } = ticket;
  rejectOthers(others);
  checkUser(user);
  if (topics !== undefined) checkTopics(topics);
  if (filter !== undefined) checkFilter(filter);
  const iat = Math.floor(Date.now() / 1000);
  const claims = {
    sub: user,
    aud: settings.audience ?? 'sse-gateway',
    iss: settings.issuer,
    iat,
    exp: iat + lifetime(ttl, settings.maxTtl ?? 60),
    jti: randomUUID(),
    topics,
    filter,
    presence: presence || undefined,
    session_exp: sessionExpires === undefined ? undefined : sessionEnd(sessionExpires, iat),
  };
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const body = `${encode({ alg: 'HS256', typ: 'JWT', kid: settings.keyId })}.${encode(claims)}`;
  const mac = createHmac('sha256', settings.secret).update(body).digest('base64url');
  const signed = `${body}.${mac}`;
  if (signed.length > MAX_TICKET_BYTES)
    throw new SseError('ticket-too-long', 'the ticket is longer than 8 KiB; use fewer topics, or'
      + ' patterns such as team-*');
  return signed;
}
