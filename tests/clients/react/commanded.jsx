// A list that is changed by events and commands, for hybrid.test.js.
import { ConnectionStatus, SseProvider, useHybrid } from '@sse-gateway/client/react';

const byId = (orders, order) => [...orders.filter(({ id }) => id !== order.id), order];

function List() {
  const { data = [], isLoading, isPending, commandError, send } = useHybrid({
    load: async ({ signal }) => (await fetch('/api/orders', { signal })).json(),
    events: { order: byId },
    command: async (order, { id }) => {
      const body = JSON.stringify({ ...order, commandId: id });
      const response = await fetch('/api/orders', { method: 'POST', body });
      if (!response.ok) throw new Error(`status ${response.status}`);
      return response.json();
    },
    optimistic: byId,
  });
  return (
    <>
      <button onClick={() => send({ id: 2, state: 'expected' })}>Order</button>
      <output>{isLoading ? 'loading' : `${isPending} ${commandError?.message ?? ''}`}</output>
      <ul>{data.map(({ id, state }) => <li key={id}>{id} {state}</li>)}</ul>
    </>
  );
}

export function Commands(options) {
  return (
    <SseProvider ticketUrl="/api/sse-ticket" {...options}>
      <ConnectionStatus />
      <List />
    </SseProvider>
  );
}
