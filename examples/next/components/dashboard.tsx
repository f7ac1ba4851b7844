'use client';
import { useEvent, useLatest } from '@sse-gateway/client/react';
import { CHANNEL, type Activity, type Counters, type Point } from '@/lib/events';
import { useItems } from '@/lib/items';
import { Chart } from './chart';
import { CARD } from './styles';

type Props = { metrics: { counters: Counters; points: Point[] }; activities: Activity[] };

/** Begins with the state that the server rendered. The retained values and the events follow. */
export function Dashboard({ metrics, activities: initial }: Props) {
  const counters = useLatest(CHANNEL, 'counters') ?? metrics.counters;
  const [points, addPoint] = useItems(metrics.points);
  const [activities, addActivity] = useItems(initial);
  useEvent('point', (point) => addPoint([point]));
  useEvent('activity', (activity) => addActivity([activity]));
  return (
    <>
      <dl className="grid grid-cols-3 gap-4">
        <Counter name="Visitors" value={counters.visitors} />
        <Counter name="Orders" value={counters.orders} />
        <Counter name="Revenue" value={`€${counters.revenue}`} />
      </dl>
      <Chart points={points} />
      <section aria-label="Activity" className={CARD}>
        <h2 className="mb-2 font-semibold">Activity</h2>
        <ol className="grid gap-1">
          {activities.toReversed().map(({ id, at, text }) => (
            <li key={id}><Time at={at} /> {text}</li>
          ))}
        </ol>
      </section>
    </>
  );
}

function Counter({ name, value }: { name: string; value: number | string }) {
  return (
    <div className={CARD}>
      <dt className="text-sm">{name}</dt>
      <dd className="text-3xl font-semibold tabular-nums">{value}</dd>
    </div>
  );
}

/** Server and browser may be in different time zones. */
function Time({ at }: { at: string }) {
  return (
    <time dateTime={at} suppressHydrationWarning>{new Date(at).toLocaleTimeString()}</time>
  );
}
