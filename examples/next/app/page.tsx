import { Suspense } from 'react';
import { LiveApp } from '@/components/live-app';
import { SignIn } from '@/components/sign-in';
import { latestMetrics } from '@/lib/metrics';
import { latestActivities } from '@/lib/orders';
import { currentUser } from '@/lib/session';

export default function Page() {
  return (
    <Suspense fallback={<p className="p-6">Loading…</p>}>
      <Home />
    </Suspense>
  );
}

async function Home() {
  const user = await currentUser();
  if (!user) return <SignIn />;
  const [metrics, activities] = await Promise.all([latestMetrics(), latestActivities()]);
  return (
    <LiveApp
      key={user.id}
      gateway={process.env.GATEWAY_URL ?? ''}
      user={user}
      metrics={metrics}
      activities={activities}
    />
  );
}
