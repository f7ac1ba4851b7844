import { memo, useId } from 'react';
import {
  Area,
  AreaChart,
  CartesianGrid,
  ResponsiveContainer,
  Tooltip,
  XAxis,
  YAxis,
} from 'recharts';
import { POINTS } from '../../shared/desk.js';
import { time } from '../describe.js';

const HEIGHT = 160;

/** Chart of the latest points. Memoised, so that it is only rendered when there is a new point. */
export const LiveChart = memo(function LiveChart({ points, label }) {
  const fill = useId();
  const counts = points.map(({ count }) => count);
  const range = `lowest ${Math.min(...counts)}, highest ${Math.max(...counts)}`;
  const description = `${label}, last ${counts.length} points: now ${counts.at(-1)}, ${range}`;
  return (
    <div className="card chart">
      <div className="card-head">
        <h3>Visitors</h3>
        <span className="hint">last {POINTS} points</span>
      </div>
      <div role="img" aria-label={description} data-points={counts.length}>
        <ResponsiveContainer width="100%" height={HEIGHT}>
          <AreaChart
            data={points}
            margin={{ top: 8, right: 4, bottom: 0, left: 0 }}
            accessibilityLayer={false}
          >
            <defs>
              <linearGradient id={fill} x1="0" y1="0" x2="0" y2="1">
                <stop offset="0" stopColor="var(--series)" stopOpacity=".32" />
                <stop offset="1" stopColor="var(--series)" stopOpacity="0" />
              </linearGradient>
            </defs>
            <CartesianGrid vertical={false} stroke="var(--line)" />
            <XAxis
              dataKey="at"
              tickFormatter={time}
              minTickGap={48}
              height={22}
              tick={{ textAnchor: 'end' }}
              tickLine={false}
              axisLine={false}
            />
            <YAxis width={32} tickLine={false} axisLine={false} allowDecimals={false} />
            <Tooltip
              labelFormatter={time}
              formatter={(count) => [count, 'visitors']}
              cursor={{ stroke: 'var(--soft)' }}
              isAnimationActive={false}
            />
            <Area
              dataKey="count"
              type="monotone"
              stroke="var(--series)"
              strokeWidth={2}
              fill={`url(#${fill})`}
              isAnimationActive={false}
            />
          </AreaChart>
        </ResponsiveContainer>
      </div>
    </div>
  );
});
