import { counted, euros } from '../describe.js';
import { Icon } from './Icon.jsx';

/** Counters of a desk, and their change since the page was opened. */
export function MetricCards({ desk, first }) {
  const visitors = desk.visitors.at(-1)?.count ?? 0;
  const before = desk.visitors.at(-6)?.count ?? visitors;
  return (
    <dl className="metrics">
      <Metric
        icon="visitors"
        name="Visitors now"
        value={counted(visitors)}
        change={visitors - before}
        since="5 s"
      />
      <Metric
        icon="order"
        name="Orders"
        value={counted(desk.orders)}
        change={desk.orders - first.orders}
      />
      <Metric
        icon="payment"
        name="Revenue"
        value={euros(desk.revenue)}
        change={desk.revenue - first.revenue}
        format={euros}
      />
      <Metric
        icon="message"
        name="Messages"
        value={counted(desk.messages)}
        change={desk.messages - first.messages}
      />
    </dl>
  );
}

function Metric({ icon, name, value, change, format = counted, since = 'this visit' }) {
  const difference = `${change > 0 ? '+' : '−'}${format(Math.abs(change))}`;
  return (
    <div className="card metric" data-metric={icon}>
      <dt><Icon name={icon} />{name}</dt>
      <dd className="value">{value}</dd>
      <dd className="change">{change === 0 ? 'no change' : difference} in {since}</dd>
    </div>
  );
}
