// Only compiled, against the published .d.ts of the hooks.
import {
  ConnectionStatus,
  useEventSource,
  useFrameBatch,
  usePresence,
  useResilientRealtime,
  type EventSourceOptions,
  type Mode,
  type Status,
} from 'sse-gateway-client/react';

type Order = { id: number };
const options: EventSourceOptions = {
  url: '/events',
  ticket: async () => 'jwt',
  share: 'user-42',
  topics: ['news'] as const,
};

export function Page({ mode }: { mode: Mode }) {
  const add = useFrameBatch((orders: Order[]) => void orders.length);
  const presence = usePresence({ initial: ['1'] });
  const online: ReadonlySet<string> = presence.online;
  void online;
  const { status, lastEventId, reconnectCount, reconnect, close } = useEventSource({
    ...options,
    eventHandlers: { ...presence.eventHandlers, order: (order: Order) => add(order) },
  });
  const other = useResilientRealtime({
    ...options,
    mode,
    enabled: false,
    onGap: ({ reason }) => void reason,
    onError: (error) => void error.message,
  });
  const transport: 'sse' | 'polling' = other.mode;
  const state: Status = other.status;
  const id: string | undefined = lastEventId;
  void [transport, state, id, reconnectCount + 1];
  return (
    <button onClick={reconnect} onBlur={close}>
      <ConnectionStatus status={status} label="Orders" texts={{ open: 'Verbunden' }} />
    </button>
  );
}

// @ts-expect-error unknown mode
useResilientRealtime({ ...options, mode: 'websocket' });
// @ts-expect-error replaced by `mode`
useResilientRealtime({ ...options, polling: 'only' });
// @ts-expect-error ids are strings
usePresence({ initial: [1] });
// @ts-expect-error status is required
void <ConnectionStatus />;
// @ts-expect-error url is required
useEventSource({ ticket: () => 'jwt' });
useEventSource({ url: '/events', withCredentials: true });
