import { createHash, randomBytes } from 'node:crypto';
import { and, eq, gt, lte } from 'drizzle-orm';
import { cookies, headers } from 'next/headers';
import { db } from './db';
import { sessions, users } from './schema';

const COOKIE = 'session';
const LIFETIME = 7 * 24 * 3600 * 1000;

/** Only the hash is stored: nobody can sign in with what is in the database. */
const hash = (token: string) => createHash('sha256').update(token).digest('hex');

/** The user who is signed in. Replace this with your own login: here, nobody needs a password. */
export async function currentUser() {
  const token = (await cookies()).get(COOKIE)?.value;
  if (!token) return undefined;
  const [session] = await db.select().from(sessions)
    .innerJoin(users, eq(users.id, sessions.userId))
    .where(and(eq(sessions.tokenHash, hash(token)), gt(sessions.expiresAt, new Date())));
  return session && { ...session.users, sessionExpires: session.sessions.expiresAt };
}

export async function openSession(userId: string) {
  await db.delete(sessions).where(lte(sessions.expiresAt, new Date()));
  const token = randomBytes(32).toString('base64url');
  const expires = new Date(Date.now() + LIFETIME);
  await db.insert(sessions).values({ tokenHash: hash(token), userId, expiresAt: expires });
  const secure = (await headers()).get('x-forwarded-proto') === 'https';
  (await cookies()).set(COOKIE, token, { httpOnly: true, sameSite: 'lax', secure, expires });
}

export async function closeSession() {
  const token = (await cookies()).get(COOKIE)?.value;
  if (token) await db.delete(sessions).where(eq(sessions.tokenHash, hash(token)));
  (await cookies()).delete(COOKIE);
}
