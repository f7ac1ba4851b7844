import { memo } from 'react';
import { Entry } from './Entry.jsx';

/** List of entries, newest first. Memoised, so that existing rows are not rendered again. */
export const ActivityFeed = memo(function ActivityFeed({ entries, label }) {
  return (
    <div className="card feed">
      <div className="card-head">
        <h3>Activity</h3>
        <span className="hint">newest first</span>
      </div>
      {entries.length === 0 ? (
        <p className="empty">No events yet. Publish one above.</p>
      ) : (
        <ol className="entries" tabIndex={0} aria-label={label}>
          {entries.map((entry) => (
            <Entry key={entry.id} entry={entry} />
          ))}
        </ol>
      )}
    </div>
  );
});
