import { counted, euros } from '../describe.js';
import { Icon } from './Icon.jsx';

/** The counters of a desk, and by how much they grew since the page was opened. */
export function MetricCards({ desk, first }) {
  const visitors = desk.visitors.at(-1)?.count ?? 0;
  const before = desk.visitors.at(-6)?.count ?? visitors;
  return (
    <dl className="metrics">
      <Metric icon="visitors" name="Visitors now" value={counted(visitors)} change={visitors - before} since="5 s" />
      <Metric icon="order" name="Orders" value={counted(desk.orders)} change={desk.orders - first.orders} />
      <Metric icon="payment" name="Revenue" value={euros(desk.revenue)} change={desk.revenue - first.revenue} shown={euros} />
      <Metric icon="message" name="Messages" value={counted(desk.messages)} change={desk.messages - first.messages} />
    </dl>
  );
}

function Metric({ icon, name, value, change, shown = counted, since = 'this visit' }) {
  return (
    <div className="card metric" data-metric={icon}>
      <dt><Icon name={icon} />{name}</dt>
      <dd className="value">{value}</dd>
      <dd className="change">{change === 0 ? 'no change' : `${change > 0 ? '+' : '−'}${shown(Math.abs(change))}`} in {since}</dd>
    </div>
  );
}
