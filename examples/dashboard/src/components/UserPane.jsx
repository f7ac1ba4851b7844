import { useCallback } from 'react';
import { getDesk } from '../api.js';
import { useLoaded } from '../useLoaded.js';
import { Desk } from './Desk.jsx';

/** One user's half of the page. Loads the state, then starts the stream; a reload restarts both. */
export function UserPane({ user, series, config, notify }) {
  const load = useCallback(() => getDesk(user.id), [user.id]);
  const { value, generation, reload } = useLoaded(load);
  return (
    <section
      className="pane"
      data-user={user.id}
      data-series={series}
      aria-labelledby={`name-${user.id}`}
      aria-busy={value === null}
    >
      {value ? (
        <Desk
          key={generation}
          user={user}
          loaded={value}
          config={config}
          notify={notify}
          onGap={reload}
        />
      ) : (
        <h2 id={`name-${user.id}`} className="loading">
          {user.name}: loading…
        </h2>
      )}
    </section>
  );
}
