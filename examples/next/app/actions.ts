'use server';

import { closeSession, openSession } from '@/lib/session';

export async function signIn(userId: string) {
  await openSession(userId);
}

export async function signOut() {
  await closeSession();
}
