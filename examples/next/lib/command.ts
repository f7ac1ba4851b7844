import { z } from 'zod';
import { currentUser } from './session';

type User = NonNullable<Awaited<ReturnType<typeof currentUser>>>;

/** A route handler for a command: checks the user and the body, then runs it. */
export function command<Body extends z.ZodType>(
  schema: Body, run: (user: User, body: z.infer<Body>) => Promise<void>,
) {
  return async (request: Request) => {
    const user = await currentUser();
    if (!user) return Response.json({ error: 'signed-out' }, { status: 401 });
    const body = schema.safeParse(await request.json().catch(() => null));
    if (!body.success) {
      return Response.json({ error: z.prettifyError(body.error) }, { status: 400 });
    }
    await run(user, body.data);
    // Accepted: the result arrives as an event, in all tabs and for all users.
    return Response.json({}, { status: 202 });
  };
}
