'use client';
import { useSyncExternalStore } from 'react';
import { EMPTY, type Outbox } from '@/lib/outbox';
import { PRICES, PRODUCTS } from '@/lib/products';
import { BUTTON } from './styles';

/** Sends orders over REST. What happened to them arrives on the stream. */
export function OrderForm({ outbox }: { outbox: Outbox }) {
  const state = useSyncExternalStore(outbox.subscribe, outbox.state, () => EMPTY);
  return (
    <section aria-label="Order" className="flex flex-wrap items-center gap-3">
      {PRODUCTS.map((product) => (
        <button
          key={product}
          className={BUTTON}
          onClick={() => outbox.send({
            name: `Order a ${product}`, url: '/api/orders', body: { product },
          })}
        >
          Order a {product} (€{PRICES[product]})
        </button>
      ))}
      <p role="status">
        {state.pending.length > 0 && `${state.pending.length} waiting to be sent`}
        {state.refused && ` ${state.refused.name}: ${state.refused.reason}`}
      </p>
    </section>
  );
}
