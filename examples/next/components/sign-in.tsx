import { signIn } from '@/app/actions';
import { db } from '@/lib/db';
import { users } from '@/lib/schema';
import { BUTTON } from './styles';

/** Replace this with your own login. */
export async function SignIn() {
  const everyone = await db.select().from(users).orderBy(users.name);
  return (
    <main className="mx-auto flex max-w-sm flex-col gap-4 p-6">
      <h1 className="text-xl font-semibold">Live orders</h1>
      {everyone.map(({ id, name }) => (
        <form key={id} action={signIn.bind(null, id)}>
          <button className={`${BUTTON} w-full`}>Sign in as {name}</button>
        </form>
      ))}
    </main>
  );
}
