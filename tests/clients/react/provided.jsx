// Components below an SseProvider, for provider.test.js.
import { useEffect, useState } from 'react';
import {
  ConnectionStatus,
  SseDevtools,
  SseProvider,
  useEvent,
  useGap,
  useLatest,
  usePresence,
  useSse,
} from '@sse-gateway/client/react';
import { schemas } from './schemas.js';

const RETAINED = {
  'broadcast:prices': {
    events: ['price'],
    forgets: ['delisted'],
    key: ({ symbol }) => symbol,
  },
  'broadcast:rates': { events: ['rate'], key: ({ pair }) => pair },
};

/** A component that creates its handlers during rendering. */
function Listener({ tag, name }) {
  window.seen.renders += 1;
  useEvent(name, (data, { type }) => window.seen.events.push({ tag, type, data }));
  useGap((gap) => window.seen.gaps.push(gap.reason));
  return null;
}

/** A value, and all values of its channel. */
function Price({ symbol }) {
  const price = useLatest('broadcast:prices', symbol);
  const all = useLatest('broadcast:prices');
  const rates = useLatest('broadcast:rates');
  const list = [...all].map(([key, { price }]) => `${key} ${price}`).sort();
  return <output>{`${price?.price}; ${list.join(', ')}; ${rates.size}`}</output>;
}

function Online() {
  const { online } = usePresence();
  return <i>{[...online].sort().join(' ')}</i>;
}

function Login() {
  const { status, reconnect, lastEventId } = useSse();
  useEffect(() => { window.result = { lastEventId, status }; });
  return status === 'signed-out' && <button onClick={reconnect}>Sign in</button>;
}

export function Desk({ tags = [], names = ['order'], symbol, checked, devtools, ...options }) {
  const [children] = useState(() => <Login />);
  return (
    <SseProvider
      ticketUrl="/api/sse-ticket"
      retained={{ ...RETAINED }}
      schemas={checked ? schemas : undefined}
      onError={(error) => window.seen.errors.push(String(error))}
      {...options}
    >
      <ConnectionStatus />
      {children}
      {tags.flatMap((tag) =>
        names.map((name) => <Listener key={`${tag} ${name}`} tag={tag} name={name} />))}
      {devtools && <SseDevtools />}
      {symbol && <Price symbol={symbol} />}
      {options.topics?.includes('presence') && <Online />}
    </SseProvider>
  );
}
