'use client';
import { useEffect, useState, useSyncExternalStore } from 'react';
import { useProvided } from './context.js';
import { Hybrid } from './hybrid.js';
import { useLatestRef } from './useLatestRef.js';

/** @import { AnyHybridOptions, UseHybrid } from './types.js' */

/**
 * State of the backend that stays current: loaded over REST, changed by events of the nearest
 * `SseProvider`, and by commands over REST whose expected result is shown at once.
 *
 * It loads when it is mounted, when the stream begins, and after a gap. Events that arrive during a
 * load are applied to its result, which may already contain them: `events` must give the same
 * result if an event is applied twice.
 *
 * @example
 * const { data: todos = [], send } = useHybrid({
 *   load: async ({ signal }): Promise<Todo[]> => {
 *     const response = await fetch('/api/todos', { signal });
 *     if (!response.ok) throw new Error(`status ${response.status}`);
 *     return response.json();
 *   },
 *   events: {
 *     todo: (todos, todo: Todo) => [...todos.filter(({ id }) => id !== todo.id), todo],
 *   },
 *   command: (todo: Todo, { id }) => post('/api/todos', { ...todo, commandId: id }),
 *   optimistic: (todos, todo) => [...todos.filter(({ id }) => id !== todo.id), todo],
 * });
 *
 * @type {UseHybrid}
 */
export const useHybrid = (/** @type {AnyHybridOptions} */ options) => {
  const { live } = useProvided('useHybrid');
  const latest = useLatestRef(options);
  const [hybrid] = useState(() => new Hybrid(latest));
  const state = useSyncExternalStore(hybrid.watch, hybrid.state, hybrid.state);
  const names = JSON.stringify(Object.keys(options.events ?? {}).sort());
  useEffect(() => hybrid.attach(live), [hybrid, live, names]);
  return {
    ...state,
    isPending: state.pending.length > 0,
    send: hybrid.send,
    reload: hybrid.reload,
  };
};
