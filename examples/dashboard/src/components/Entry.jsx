import { memo } from 'react';
import { describe, time } from '../describe.js';
import { Icon } from './Icon.jsx';

export const Entry = memo(function Entry({ entry, unread = false }) {
  const { title, text } = describe(entry);
  return (
    <li
      className="entry"
      data-type={entry.type}
      data-status={entry.status}
      data-id={entry.id}
      data-unread={unread || undefined}
    >
      <span className="badge">
        <Icon name={entry.type} />
      </span>
      <div className="words">
        <p className="title">
          {unread && <span className="visually-hidden">Unread: </span>}
          {title}
        </p>
        {text && <p className="text">{text}</p>}
      </div>
      <time dateTime={new Date(entry.at).toISOString()}>{time(entry.at)}</time>
    </li>
  );
});
