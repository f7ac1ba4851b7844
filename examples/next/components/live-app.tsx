'use client';
import { useRouter } from 'next/navigation';
import { useEffect, useState, type ComponentProps } from 'react';
import { ConnectionStatus, SseDevtools, SseProvider, useSse } from '@sse-gateway/client/react';
import { signOut } from '@/app/actions';
import { asUser } from '@/lib/as-user';
import { CHANNEL, TOPICS, schemas } from '@/lib/events';
import { Outbox } from '@/lib/outbox';
import { Bell } from './bell';
import { Dashboard } from './dashboard';
import { OrderForm } from './order-form';
import { BUTTON, LINE } from './styles';

type Props = ComponentProps<typeof Dashboard> & {
  gateway: string;
  user: { id: string; name: string; readUpTo: number };
};

export function LiveApp({ gateway, user, ...state }: Props) {
  const router = useRouter();
  const [outbox] = useState(() => new Outbox(user.id, () => router.refresh()));
  return (
    <SseProvider
      url={`${gateway}/events`}
      ticketUrl={asUser('/api/sse-ticket', user.id)}
      topics={TOPICS}
      schemas={schemas}
      share={`user-${user.id}`}
      retained={{ [CHANNEL]: { events: ['counters'], key: () => 'counters' } }}
      onGap={() => router.refresh()}
    >
      <header className={`flex flex-wrap items-center gap-4 border-b px-6 py-3 ${LINE}`}>
        <h1 className="mr-auto text-xl font-semibold">Live orders</h1>
        <Status />
        <Bell gateway={gateway} user={user} outbox={outbox} />
        <form action={signOut}><button className={BUTTON}>Sign out {user.name}</button></form>
      </header>
      <main className="mx-auto grid max-w-5xl gap-6 p-6">
        <OrderForm outbox={outbox} />
        <Dashboard {...state} />
      </main>
      {process.env.NODE_ENV === 'development' && <SseDevtools />}
    </SseProvider>
  );
}

/** When the session has ended, the server renders the login, or the page of the next user. */
function Status() {
  const router = useRouter();
  const { status } = useSse();
  useEffect(() => { if (status === 'signed-out') router.refresh(); }, [status, router]);
  return <ConnectionStatus />;
}
