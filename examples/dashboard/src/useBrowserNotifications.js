import { useCallback, useState } from 'react';

const supported = typeof Notification === 'function';

/**
 * Shows system notifications. Request the permission when the user clicks: browsers may block
 * requests that are sent automatically.
 * @returns {{
 *   permission: 'default' | 'granted' | 'denied' | 'unsupported',
 *   ask: () => Promise<void>,
 *   show: (title: string, text: string, tag: string) => void,
 * }}
 */
export function useBrowserNotifications() {
  const [permission, setPermission] = useState(supported ? Notification.permission : 'unsupported');
  const ask = useCallback(async () => {
    setPermission(await Notification.requestPermission());
  }, []);
  const show = useCallback((title, body, tag) => {
    if (!supported || Notification.permission !== 'granted') return;
    // The tag avoids duplicates if several tabs show the same event. Phones only allow
    // notifications from service workers.
    try { new Notification(title, { body, tag }); } catch { setPermission('unsupported'); }
  }, []);
  return { permission, ask, show };
}
