import { useEffect, useReducer } from 'react';
import { ConnectionStatus, useFrameBatch, useResilientRealtime } from '@sse-gateway/client/react';
import { getTicket } from '../api.js';
import { summary } from '../describe.js';
import { begin, reduce } from '../view.js';
import { ActivityFeed } from './ActivityFeed.jsx';
import { LiveChart } from './LiveChart.jsx';
import { MetricCards } from './MetricCards.jsx';
import { Notifications } from './Notifications.jsx';

/** A user's desk, updated by its own stream. */
export function Desk({ user, loaded, config, notify, onGap }) {
  const [view, dispatch] = useReducer(reduce, loaded.desk, begin);

  const addToBatch = useFrameBatch((events) => dispatch({ type: 'events', events }));
  const handle = (_, event) => addToBatch(event);
  const { status } = useResilientRealtime({
    url: `${config.gateway}/events`,
    ticket: () => getTicket(user.id),
    topics: [config.topic],
    lastEventId: loaded.cursor,
    eventHandlers: { order: handle, payment: handle, message: handle, visitors: handle },
    onGap,
  });
  useEffect(() => dispatch({ type: 'connection', status, at: Date.now() }), [status]);

  const { latest } = view;
  useEffect(() => {
    if (latest.length > 0) notify(user.name, summary(latest), `${user.id} ${latest.at(-1).id}`);
  }, [latest, notify, user]);

  return (
    <>
      <div className="pane-head">
        <span className="avatar" aria-hidden="true">
          {user.name[0]}
        </span>
        <div>
          <h2 id={`name-${user.id}`}>{user.name}</h2>
          <p className="place">{user.place}</p>
        </div>
        <ConnectionStatus status={status} label={`Connection of ${user.name}`} />
        <Notifications
          user={user}
          entries={view.desk.activity}
          unread={view.unread}
          onRead={() => dispatch({ type: 'read' })}
        />
      </div>
      <MetricCards desk={view.desk} first={view.first} />
      <LiveChart points={view.desk.visitors} label={`Visitors of the ${user.place}`} />
      <ActivityFeed entries={view.feed} label={`Activity of ${user.name}`} />
      <p className="visually-hidden" role="status">
        {latest.length > 0 && `${user.name}: ${summary(latest)}`}
      </p>
    </>
  );
}
