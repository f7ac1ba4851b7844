import { useCallback, useState } from 'react';

const supported = typeof Notification === 'function';

/**
 * Notifications of the system. The permission is asked for by a click, never by itself: browsers punish the other.
 * @returns {{ permission: 'default' | 'granted' | 'denied' | 'unsupported', ask: () => Promise<void>, show: (title: string, text: string, tag: string) => void }}
 */
export function useBrowserNotifications() {
  const [permission, setPermission] = useState(supported ? Notification.permission : 'unsupported');
  const ask = useCallback(async () => setPermission(await Notification.requestPermission()), []);
  const show = useCallback((title, body, tag) => {
    if (!supported || Notification.permission !== 'granted') return;
    // A tag shows an event once, though several tabs tell of it. Phones allow notifications from service workers only.
    try { new Notification(title, { body, tag }); } catch { setPermission('unsupported'); }
  }, []);
  return { permission, ask, show };
}
