import { memo } from 'react';
import { Entry } from './Entry.jsx';

/** What happened, newest first. Rows that are there already are not drawn again. */
export const ActivityFeed = memo(function ActivityFeed({ entries, label }) {
  return (
    <div className="card feed">
      <div className="card-head"><h3>Activity</h3><span className="hint">newest first</span></div>
      {entries.length === 0
        ? <p className="empty">Nothing yet. Publish something above.</p>
        : <ol className="entries" tabIndex={0} aria-label={label}>{entries.map((entry) => <Entry key={entry.id} entry={entry} />)}</ol>}
    </div>
  );
});
