import { useCallback, useEffect, useState } from 'react';

/** Delay after a failed load, in ms. */
const RETRY = 2000;
/** Minimum delay before a reload, in ms. */
const RELOAD = 250;

/**
 * Loads a value from the backend and retries until it succeeds. `reload` loads it again; the
 * previous value remains until then.
 * @returns {{ value: any, generation: number, error: Error | null, reload: () => void }}
 */
export function useLoaded(load) {
  const [loaded, setLoaded] = useState({ value: null, generation: 0, error: null });
  const [attempt, setAttempt] = useState({ delay: 0 });

  useEffect(() => {
    let cancelled = false;
    const timer = setTimeout(async () => {
      try {
        const value = await load();
        if (cancelled) return;
        setLoaded((before) => ({ value, generation: before.generation + 1, error: null }));
      } catch (error) {
        if (cancelled) return;
        setLoaded((before) => ({ ...before, error }));
        setAttempt({ delay: RETRY });
      }
    }, attempt.delay);
    return () => { cancelled = true; clearTimeout(timer); };
  }, [load, attempt]);

  // With jitter: a gap usually affects all browsers at once.
  const reload = useCallback(() => setAttempt({ delay: RELOAD + Math.random() * 3 * RELOAD }), []);
  return { ...loaded, reload };
}
