import { useCallback, useState } from 'react';
import { SHOWN } from './events';

/**
 * The latest items, oldest first. They arrive from the server, the history and the stream, in any
 * order and more than once: the id decides.
 */
export function useItems<Item extends { id: number }>(initial: Item[]) {
  const [arrived, setArrived] = useState<Item[]>([]);
  const add = useCallback(
    (items: Item[]) => setArrived((before) => merge(before, items)),
    [],
  );
  return [merge(initial, arrived), add] as const;
}

/** The latest items of both lists. A later one replaces one with the same id. */
export function merge<Item extends { id: number }>(before: Item[], items: Item[]) {
  const byId = new Map([...before, ...items].map((item) => [item.id, item]));
  return [...byId.values()].sort((a, b) => a.id - b.id).slice(-SHOWN);
}
