'use client';
import { Line, LineChart, ResponsiveContainer, XAxis, YAxis } from 'recharts';
import { SHOWN, type Point } from '@/lib/events';
import { CARD } from './styles';

export function Chart({ points }: { points: Point[] }) {
  const data = points.map(({ at, visitors }) => ({ time: at.slice(11, 19), visitors }));
  return (
    <figure className={CARD}>
      <figcaption className="mb-2 font-semibold">
        Visitors, last {SHOWN} points (UTC)
      </figcaption>
      <div className="h-56" data-points={points.length}>
        <ResponsiveContainer>
          <LineChart data={data} accessibilityLayer={false} aria-hidden>
            <XAxis dataKey="time" stroke="currentColor" />
            <YAxis stroke="currentColor" width={40} />
            <Line dataKey="visitors" stroke="#3b82f6" dot={false} isAnimationActive={false} />
          </LineChart>
        </ResponsiveContainer>
      </div>
    </figure>
  );
}
