// Components that poll, for polling.test.js.
import { usePolling } from '@sse-gateway/client/react';

function Polled({ pollKey, ...options }) {
  const { data, error, isLoading, isFetching, refetch } = usePolling({
    key: pollKey,
    fetcher: async ({ signal }) => {
      const response = await fetch('/api/orders', { signal });
      if (!response.ok) throw new Error(`status ${response.status}`);
      return response.json();
    },
    ...options,
  });
  return (
    <button onClick={refetch} data-fetching={isFetching}>
      {isLoading ? 'loading' : [data, error?.message].join(' ')}
    </button>
  );
}

export function Polling({ count = 1, ...options }) {
  return Array.from({ length: count }, (_, i) => <Polled key={i} {...options} />);
}
