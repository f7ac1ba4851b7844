// Only compiled, in a project of its own: the hooks with the types that react/README.md declares.
import { useEvent, useEventSource, useHybrid, useLatest } from '@sse-gateway/client/react';

type Price = { symbol: string; price: number };

export function Page() {
  useEvent('order', (order, event) => {
    const id: number = order.id + event.data.id;
    // @ts-expect-error unknown property
    void [id, order.text];
  });
  useEvent('sse.gap', ({ channels }) => void channels.length);
  // @ts-expect-error unknown event
  useEvent('orders', () => {});
  const notification = ({ text }: { text: string }) => void text.length;
  useEventSource({ url: '/events', eventHandlers: { notification } });
  // @ts-expect-error unknown event
  useEventSource({ url: '/events', eventHandlers: { notifications: () => {} } });
  const { data = [] } = useHybrid({
    load: async () => ['a'],
    events: {
      notification: (texts, { text }) => [text, ...texts],
      // @ts-expect-error unknown property
      order: (texts, { text }) => [text, ...texts],
    },
  });
  void data[0]?.length;
  const price: Price | undefined = useLatest('broadcast:prices', 'btc');
  // @ts-expect-error unknown property
  useLatest('broadcast:prices', 'btc')?.text;
  useLatest<number>('broadcast:other', 'x')?.toFixed();
  return price?.price;
}
