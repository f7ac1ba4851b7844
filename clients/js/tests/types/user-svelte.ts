// Uses of the Svelte store that must compile, and others that must not. Never run.
import type { Readable } from 'svelte/store';
import type { State } from '@sse-gateway/client';
import { createSse } from '@sse-gateway/client/svelte';

type Events = { 'price': { amount: number } };
const sse = createSse<Events>({ url: '/events', ticketUrl: '/api/sse-ticket' });

const state: Readable<State> = sse;
const off: () => void = sse.on('price', ({ amount }) => amount.toFixed());
// @ts-expect-error unknown event
sse.on('prices', () => {});
const price: Readable<{ amount: number } | undefined> = sse.latest('price');
const known: Readable<{ amount: number }> = sse.latest('price', { amount: 0 });
// @ts-expect-error the initial value is undefined
const wrong: Readable<{ amount: number }> = sse.latest('price');
// @ts-expect-error the stream closes with its last user
sse.close();
createSse({ url: '/events' }).on('anything', (data) => data.whatever);
// @ts-expect-error url is required
createSse({});
export default [state, off, price, known, wrong];
