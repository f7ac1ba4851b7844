import { useCallback, useEffect, useState } from 'react';

const AGAIN = 2000;
/** The shortest wait before what was loaded is loaded again. */
const LEAST = 250;

/**
 * Loads something from the backend, and tries again until it is there. `reload` gets it anew, the old value stays until then.
 * @returns {{ value: any, generation: number, error: Error | null, reload: () => void }}
 */
export function useLoaded(load) {
  const [loaded, setLoaded] = useState({ value: null, generation: 0, error: null });
  const [asked, setAsked] = useState({ wait: 0 });

  useEffect(() => {
    let over = false;
    const timer = setTimeout(async () => {
      try {
        const value = await load();
        if (!over) setLoaded((before) => ({ value, generation: before.generation + 1, error: null }));
      } catch (error) {
        if (over) return;
        setLoaded((before) => ({ ...before, error }));
        setAsked({ wait: AGAIN });
      }
    }, asked.wait);
    return () => { over = true; clearTimeout(timer); };
  }, [load, asked]);

  // Not all browsers at once: what made a gap here made it everywhere.
  const reload = useCallback(() => setAsked({ wait: LEAST + Math.random() * 3 * LEAST }), []);
  return { ...loaded, reload };
}
