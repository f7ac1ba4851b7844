import { randomBytes } from 'node:crypto';
import { eq } from 'drizzle-orm';
import { cookies, headers } from 'next/headers';
import { db } from './db';
import { sessions, users } from './schema';

const COOKIE = 'session';

/** The user who is signed in. Replace this with your own login: here, nobody needs a password. */
export async function currentUser() {
  const token = (await cookies()).get(COOKIE)?.value;
  if (!token) return undefined;
  const [session] = await db.select().from(sessions)
    .innerJoin(users, eq(users.id, sessions.userId))
    .where(eq(sessions.token, token));
  return session?.users;
}

export async function openSession(userId: string) {
  const token = randomBytes(32).toString('base64url');
  await db.insert(sessions).values({ token, userId });
  const secure = (await headers()).get('x-forwarded-proto') === 'https';
  (await cookies()).set(COOKIE, token, { httpOnly: true, sameSite: 'lax', secure });
}

export async function closeSession() {
  const token = (await cookies()).get(COOKIE)?.value;
  if (token) await db.delete(sessions).where(eq(sessions.token, token));
  (await cookies()).delete(COOKIE);
}
