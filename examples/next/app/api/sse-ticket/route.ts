import { TOPICS } from '@/lib/events';
import { requestUser } from '@/lib/request-user';
import { sse } from '@/lib/sse';

export async function POST(request: Request) {
  const user = await requestUser(request);
  if (!user) return Response.json({ error: 'signed-out' }, { status: 401 });
  const { id, sessionExpires } = user;
  const ticket = sse.ticket({ user: id, topics: TOPICS, sessionExpires });
  return Response.json({ ticket }, { headers: { 'cache-control': 'no-store' } });
}
