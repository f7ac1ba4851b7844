import { eq, sql } from 'drizzle-orm';
import { db } from './db';
import { users } from './schema';
import { sse } from './sse';

/** Marks notifications as read, in every tab and on every device of the user. */
export async function markAsRead(userId: string, upTo: number) {
  const [user] = await db.update(users)
    .set({ readUpTo: sql`greatest(${users.readUpTo}, ${upTo})` })
    .where(eq(users.id, userId)).returning();
  await sse.publishToUser(userId, 'notifications-read', { upTo: user.readUpTo }, { keep: 'read' });
}
