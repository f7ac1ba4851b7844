// Issues tickets. A ticket is a JWT that names the user and the topics, and must be used before it
// expires. The gateway has the same secret.
import { createHmac, randomUUID } from 'node:crypto';

const SECONDS = 30;
const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/**
 * Returns a ticket for a user's own events and the given topics. `kid` identifies the key if the
 * gateway has several.
 */
export function mint({ secret, kid }, user, topics) {
  const iat = Math.floor(Date.now() / 1000);
  const claims = {
    sub: user,
    aud: 'sse-gateway',
    iat,
    exp: iat + SECONDS,
    jti: randomUUID(),
    topics,
  };
  const body = `${encode({ alg: 'HS256', typ: 'JWT', kid })}.${encode(claims)}`;
  return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`;
}
