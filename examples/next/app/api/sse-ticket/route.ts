import { TOPIC } from '@/lib/events';
import { currentUser } from '@/lib/session';
import { sse } from '@/lib/sse';

export async function POST() {
  const user = await currentUser();
  if (!user) return Response.json({ error: 'signed-out' }, { status: 401 });
  const ticket = sse.ticket({ user: user.id, topics: [TOPIC] });
  return Response.json({ ticket }, { headers: { 'cache-control': 'no-store' } });
}
