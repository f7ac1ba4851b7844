import { z } from 'zod';
import { requestUser } from './request-user';

type User = NonNullable<Awaited<ReturnType<typeof requestUser>>>;

const refuse = (status: number, error: string) => Response.json({ error }, { status });

/** A route handler for a command: checks the user and the body, then runs it. */
export function command<Body extends z.ZodType>(
  schema: Body, run: (user: User, body: z.infer<Body>) => Promise<void>,
) {
  return async (request: Request) => {
    const user = await requestUser(request);
    if (!user) return refuse(401, 'signed-out');
    // Other sites can send forms with the user's cookies, but no JSON.
    const type = request.headers.get('content-type');
    if (!type?.startsWith('application/json')) return refuse(415, 'Send application/json.');
    const body = schema.safeParse(await request.json().catch(() => null));
    if (!body.success) return refuse(400, body.error.issues.map((one) => one.message).join(' '));
    await run(user, body.data);
    // Accepted: the result arrives as an event, in all tabs and for all users.
    return Response.json({}, { status: 202 });
  };
}
