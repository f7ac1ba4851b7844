'use client';
import { useState } from 'react';
import { useEvent, useHybrid } from '@sse-gateway/client/react';
import type { Activity } from '@/lib/events';
import { merge } from '@/lib/items';
import { loadNotifications } from '@/lib/notification-history';
import type { Outbox } from '@/lib/outbox';
import { playSound, turnSound } from '@/lib/sound';
import { BUTTON, CARD } from './styles';
import { Toast } from './toast';

const PANEL = 'fixed top-16 right-6 left-auto m-0 w-80 bg-background text-foreground shadow-lg';

type Props = { gateway: string; user: { id: string; readUpTo: number }; outbox: Outbox };

export function Bell({ gateway, user, outbox }: Props) {
  const { data: notifications = [] } = useHybrid({
    load: () => loadNotifications(gateway, user.id),
    events: { notification: (all, one: Activity) => merge(all, [one]) },
  });
  const [marked, setMarked] = useState(0);
  const readUpTo = Math.max(marked, user.readUpTo);
  const unread = notifications.filter(({ id }) => id > readUpTo).length;
  const mark = (upTo: number) => setMarked((before) => Math.max(before, upTo));
  useEvent('notifications-read', ({ upTo }) => mark(upTo));

  const [newest, setNewest] = useState<Activity>();
  useEvent('notification', (notification) => {
    setNewest(notification);
    playSound();
  });

  const markAllAsRead = () => {
    const upTo = notifications.at(-1)?.id ?? 0;
    mark(upTo);
    outbox.send({ name: 'Mark all as read', url: '/api/notifications/read', body: { upTo } });
  };

  return (
    <>
      <button
        className={BUTTON}
        popoverTarget="notifications"
        aria-label={`Notifications, ${unread} unread`}
      >
        <BellIcon /> {unread > 0 && <strong>{unread}</strong>}
      </button>
      <section
        id="notifications"
        popover="auto"
        aria-label="Notifications"
        className={`${CARD} ${PANEL}`}
      >
        <div className="mb-3 flex items-center justify-between gap-2">
          <label className="text-sm">
            <input type="checkbox" onChange={(event) => turnSound(event.target.checked)} /> Sound
          </label>
          <button className={BUTTON} onClick={markAllAsRead} disabled={unread === 0}>
            Mark all as read
          </button>
        </div>
        {notifications.length === 0 && <p>No notifications</p>}
        <ol className="grid gap-1">
          {notifications.toReversed().map(({ id, text }) => (
            <li key={id} className={id > readUpTo ? 'font-semibold' : ''}>
              {text} {id > readUpTo && <span className="sr-only">(unread)</span>}
            </li>
          ))}
        </ol>
      </section>
      <Toast notification={newest} />
    </>
  );
}

function BellIcon() {
  return (
    <svg aria-hidden viewBox="0 0 16 16" className="inline h-4 w-4 fill-current">
      <path d="M8 1a4.5 4.5 0 0 0-4.5 4.5V9L2 12h12l-1.5-3V5.5A4.5 4.5 0 0 0 8 1z" />
      <path d="M6 13a2 2 0 0 0 4 0z" />
    </svg>
  );
}
