import { useEffect, useId, useRef, useState } from 'react';
import { Entry } from './Entry.jsx';
import { Icon } from './Icon.jsx';

const SHOWN = 20;

/** Bell with the number of unread notifications and a list. Closing the list marks them as read. */
export function Notifications({ user, entries, unread, onRead }) {
  const [open, setOpen] = useState(false);
  const panel = useId();
  const box = useRef(null);
  const bell = useRef(null);
  const close = () => { setOpen(false); onRead(); };

  useEffect(() => {
    if (!open) return undefined;
    const outside = (event) => { if (!box.current.contains(event.target)) close(); };
    document.addEventListener('pointerdown', outside);
    return () => document.removeEventListener('pointerdown', outside);
  });
  const escape = (event) => {
    if (event.key !== 'Escape' || !open) return;
    close();
    bell.current.focus();
  };

  return (
    <div className="notifications" ref={box} onKeyDown={escape}>
      <button
        ref={bell}
        type="button"
        className="bell"
        aria-expanded={open}
        aria-controls={open ? panel : undefined}
        aria-label={`Notifications of ${user.name}, ${unread} unread`}
        onClick={() => (open ? close() : setOpen(true))}
      >
        <Icon name="bell" />
        {unread > 0 && <span className="unread">{unread > 99 ? '99+' : unread}</span>}
      </button>
      {open && (
        <section id={panel} className="card panel" aria-label={`Notifications of ${user.name}`}>
          <div className="card-head">
            <h3>Notifications</h3>
            {/* Not `disabled`: the button would lose the focus when it is pressed. */}
            <button type="button" className="small" onClick={onRead} aria-disabled={unread === 0}>
              Mark all as read
            </button>
          </div>
          {entries.length === 0 ? (
            <p className="empty">No notifications.</p>
          ) : (
            <ul className="entries" tabIndex={0} aria-label="Notifications, newest first">
              {entries.slice(0, SHOWN).map((entry, place) => (
                <Entry key={entry.id} entry={entry} unread={place < unread} />
              ))}
            </ul>
          )}
        </section>
      )}
    </div>
  );
}
