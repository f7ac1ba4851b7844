// The page of the React tests: renders the hook under test, controlled through `window`.
import { StrictMode, useEffect, useMemo, useState } from 'react';
import { QueryClient, QueryClientProvider, useQuery, useQueryClient } from '@tanstack/react-query';
import { flushSync } from 'react-dom';
import { createRoot } from 'react-dom/client';
import {
  ConnectionStatus,
  useEventSource,
  useFrameBatch,
  usePresence,
  useResilientRealtime,
} from '@sse-gateway/client/react';
import * as commanded from './commanded.jsx';
import * as polled from './polled.jsx';
import * as provided from './provided.jsx';

const hooks = { useEventSource, useResilientRealtime };
const ticket = async () => (await fetch('/ticket', { method: 'POST' })).text();
/** Recorded events with the tag of their handler, states in order, and the number of renders. */
window.seen = {
  events: [], states: [], gaps: [], errors: [], messages: [], opens: 0, renders: 0,
};

/** A typical component: creates all options during rendering. */
function Probe({
  hook = 'useEventSource',
  tag = '',
  names = ['order'],
  topics,
  showsId,
  showsMessages,
  atMount,
  ...options
}) {
  window.seen.renders += 1;
  const handlers = names.map((name) => [
    name,
    (data, { id, type }) => window.seen.events.push({ tag, type, data, id }),
  ]);
  const result = hooks[hook]({
    ...options,
    ticket: () => ticket(),
    topics: topics && [...topics],
    eventHandlers: Object.fromEntries(handlers),
    onGap: (gap) => window.seen.gaps.push(gap),
    onError: (error) => window.seen.errors.push(String(error)),
    onOpen: () => { window.seen.opens += 1; },
    onMessage: showsMessages && (({ type, data }) => window.seen.messages.push([type, data.n])),
  });
  const { status } = result;
  useEffect(() => {
    window.seen.states.push(status);
  }, [status]);
  useEffect(() => {
    window.result = result;
  });
  useEffect(() => {
    if (atMount) result[atMount]();
  }, []);
  return (
    <>
      <ConnectionStatus status={status} />
      {showsId && <output>{result.lastEventId}</output>}
    </>
  );
}

/** A list of the latest events. */
function Flood(options) {
  const [rows, setRows] = useState({ count: 0, last: [] });
  const add = useFrameBatch((events) => {
    window.seen.batches.push(events.length);
    setRows(({ count, last }) => ({
      count: count + events.length,
      last: [...last, ...events].slice(-200),
    }));
  });
  window.seen.renders += 1;
  const { status } = useEventSource({
    ...options,
    ticket,
    eventHandlers: {
      order: (data) => {
        window.seen.events.push(data.n);
        window.seen.arrived.push(performance.now());
        add(data);
      },
    },
  });
  return (
    <>
      <ConnectionStatus status={status} />
      <output>{rows.count}</output>
      <ol>
        {rows.last.map(({ n, text }) => (
          <li key={n}>
            {n}: {text}
          </li>
        ))}
      </ol>
    </>
  );
}

/** The users who are online. `initial` is a string: an array would be new in each render. */
function People({ initial, ...options }) {
  const ids = useMemo(() => initial?.split(' '), [initial]);
  const { online, eventHandlers } = usePresence({ initial: ids });
  const { status } = useEventSource({ ...options, ticket, eventHandlers });
  return (
    <>
      <ConnectionStatus status={status} />
      <output>{[...online].sort().join(' ')}</output>
    </>
  );
}

const queryKey = ['orders'];
const queries = new QueryClient();

/**
 * The TanStack Query recipe of clients/js/react/README.md, unchanged except for `url`.
 * docs.test.js compares the two.
 */
function useOrders(url) {
  const client = useQueryClient();
  const { status } = useResilientRealtime({
    url,
    ticket,
    eventHandlers: {
      order: (order) => {
        // A response in flight may be older than this event and would overwrite it: fetch again.
        if (client.isFetching({ queryKey })) client.invalidateQueries({ queryKey });
        else client.setQueryData(queryKey, (orders) =>
          orders && [...orders.filter(({ id }) => id !== order.id), order]);
      },
    },
    onGap: () => client.invalidateQueries({ queryKey }),
  });
  const connected = status !== 'connecting';
  useEffect(() => {
    if (connected) client.invalidateQueries({ queryKey });
  }, [client, connected]);

  return useQuery({
    queryKey,
    queryFn: async () => {
      const response = await fetch('/api/orders');
      if (!response.ok) throw new Error(`status ${response.status}`);
      return response.json();
    },
    staleTime: Infinity, // the stream keeps the data fresh
  });
}

function Orders({ url }) {
  const { data = [], isFetching } = useOrders(url);
  return (
    <ul data-fetching={isFetching}>
      {data.map(({ id, state }) => (
        <li key={id}>
          {id} {state}
        </li>
      ))}
    </ul>
  );
}

const root = createRoot(document.getElementById('root'));
const components = {
  ...commanded,
  ...polled,
  ...provided,
  Probe,
  Flood,
  People,
  Orders: (props) => (
    <QueryClientProvider client={queries}>
      <Orders {...props} />
    </QueryClientProvider>
  ),
};
window.show = (name, props) => {
  const Shown = components[name];
  // Synchronously, including effects, so that the test continues afterwards.
  flushSync(() => root.render(<StrictMode>{Shown && <Shown {...props} />}</StrictMode>));
};
