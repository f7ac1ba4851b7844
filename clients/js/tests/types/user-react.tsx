// The same for the hooks: compiled against the shipped .d.ts, never run.
import { ConnectionStatus, useEventSource, useFrameBatch, useResilientRealtime, type EventSourceOptions, type Mode, type Status } from 'sse-gateway-client/react';

type Order = { id: number };
const options: EventSourceOptions = { url: '/events', ticket: async () => 'jwt', share: 'user-42', topics: ['news'] as const };

export function Page({ mode }: { mode: Mode }) {
  const add = useFrameBatch((orders: Order[]) => void orders.length);
  const { status, lastEventId, reconnectCount, reconnect, close } = useEventSource({ ...options, eventHandlers: { order: (order: Order) => add(order) } });
  const other = useResilientRealtime({ ...options, mode, enabled: false, onGap: ({ reason }) => void reason, onError: (error) => void error.message });
  const way: 'sse' | 'polling' = other.mode;
  const state: Status = other.status;
  const id: string | undefined = lastEventId;
  void [way, state, id, reconnectCount + 1];
  return <button onClick={reconnect} onBlur={close}><ConnectionStatus status={status} label="Orders" texts={{ open: 'Verbunden' }} /></button>;
}

// @ts-expect-error no such mode
useResilientRealtime({ ...options, mode: 'websocket' });
// @ts-expect-error polls are set by `mode` there
useResilientRealtime({ ...options, polling: 'only' });
// @ts-expect-error a state is needed
void <ConnectionStatus />;
// @ts-expect-error a ticket is needed
useEventSource({ url: '/events' });
