// The page of the React tests: one component with the hook under test, driven and watched from the test through `window`.
import { StrictMode, useEffect, useState } from 'react';
import { QueryClient, QueryClientProvider, useQuery, useQueryClient } from '@tanstack/react-query';
import { flushSync } from 'react-dom';
import { createRoot } from 'react-dom/client';
import { ConnectionStatus, useEventSource, useFrameBatch, useResilientRealtime } from 'sse-gateway-client/react';

const hooks = { useEventSource, useResilientRealtime };
const ticket = async () => (await fetch('/ticket', { method: 'POST' })).text();
/** What was seen: events with the tag that the handler had, the states in order, and how often the component was rendered. */
window.seen = { events: [], states: [], gaps: [], errors: [], renders: 0 };

/** A component as people write them: everything is made anew at each render. */
function Probe({ hook = 'useEventSource', tag = '', names = ['order'], topics, showsId, atMount, ...options }) {
  window.seen.renders += 1;
  const handlers = names.map((name) => [name, (data, { id, type }) => window.seen.events.push({ tag, type, data, id })]);
  const result = hooks[hook]({
    ...options,
    ticket: () => ticket(),
    topics: topics && [...topics],
    eventHandlers: Object.fromEntries(handlers),
    onGap: (gap) => window.seen.gaps.push(gap),
    onError: (error) => window.seen.errors.push(String(error)),
  });
  const { status } = result;
  useEffect(() => { window.seen.states.push(status); }, [status]);
  useEffect(() => { window.result = result; });
  useEffect(() => { if (atMount) result[atMount](); }, []);
  return (
    <>
      <ConnectionStatus status={status} />
      {showsId && <output>{result.lastEventId}</output>}
    </>
  );
}

/** A list that shows the last events of many. */
function Flood(options) {
  const [rows, setRows] = useState({ count: 0, last: [] });
  const add = useFrameBatch((events) => {
    window.seen.batches.push(events.length);
    setRows(({ count, last }) => ({ count: count + events.length, last: [...last, ...events].slice(-200) }));
  });
  window.seen.renders += 1;
  useEventSource({ ...options, ticket, eventHandlers: { order: (data) => { window.seen.events.push(data.n); window.seen.arrived.push(performance.now()); add(data); } } });
  return <><output>{rows.count}</output><ol>{rows.last.map(({ n, text }) => <li key={n}>{n}: {text}</li>)}</ol></>;
}

const queryKey = ['orders'];
const queries = new QueryClient();

/** The recipe of clients/js/react/README.md, "TanStack Query"; docs.test.js compares the two. */
function useOrders(url) {
  const client = useQueryClient();
  const reload = () => client.invalidateQueries({ queryKey });
  const { status } = useResilientRealtime({
    url,
    ticket,
    eventHandlers: {
      order: (order) => {
        // A response on its way may be older than this event and would undo it: ask again.
        if (client.isFetching({ queryKey })) return reload();
        const others = (all) => all.filter(({ id }) => id !== order.id);
        client.setQueryData(queryKey, (orders) => orders && [...others(orders), order]);
      },
    },
    onGap: reload,
  });
  const isConnected = status !== 'connecting';
  useEffect(() => {
    if (isConnected) client.invalidateQueries({ queryKey });
  }, [client, isConnected]);

  const queryFn = async () => (await fetch('/api/orders')).json();
  // `staleTime`: the stream keeps it current, so it need not be refetched.
  return useQuery({ queryKey, queryFn, staleTime: Infinity });
}

function Orders({ url }) {
  const { data = [], isFetching } = useOrders(url);
  return <ul data-fetching={isFetching}>{data.map(({ id, state }) => <li key={id}>{id} {state}</li>)}</ul>;
}

const root = createRoot(document.getElementById('root'));
const components = { Probe, Flood, Orders: (props) => <QueryClientProvider client={queries}><Orders {...props} /></QueryClientProvider> };
window.show = (name, props) => {
  const Shown = components[name];
  // At once, effects included: what the test does next happens after it.
  flushSync(() => root.render(<StrictMode>{Shown && <Shown {...props} />}</StrictMode>));
};
