// A ticket is a JWT that says who may listen, and for how long the first connection may wait. The gateway knows the secret too.
import { createHmac, randomUUID } from 'node:crypto';

const SECONDS = 30;
const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A ticket for a user's own events and the given topics. `kid`: which of the gateway's keys it is, if that has several. */
export function mint({ secret, kid }, user, topics) {
  const iat = Math.floor(Date.now() / 1000);
  const claims = { sub: user, aud: 'sse-gateway', iat, exp: iat + SECONDS, jti: randomUUID(), topics };
  const body = `${encode({ alg: 'HS256', typ: 'JWT', kid })}.${encode(claims)}`;
  return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`;
}
