'use client';
import { useEffect, useState } from 'react';
import type { Activity } from '@/lib/events';
import { BUTTON, CARD } from './styles';

const SHOWN_FOR = 8000;

/** Shows the newest notification for a while. The bell keeps all of them. */
export function Toast({ notification }: { notification?: Activity }) {
  const [hidden, setHidden] = useState<Activity>();
  const shown = notification && notification !== hidden ? notification : undefined;
  useEffect(() => {
    if (!shown) return;
    const timer = setTimeout(() => setHidden(shown), SHOWN_FOR);
    return () => clearTimeout(timer);
  }, [shown]);
  return (
    <div role="status" className="fixed right-6 bottom-6">
      {shown && (
        <div className={`${CARD} flex items-center gap-4 bg-background shadow-lg`}>
          {shown.text}
          <button className={BUTTON} onClick={() => setHidden(shown)}>Dismiss</button>
        </div>
      )}
    </div>
  );
}
