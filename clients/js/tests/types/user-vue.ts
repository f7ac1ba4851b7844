// Uses of the Vue composables that must compile, and others that must not. Never run.
import type { Ref } from 'vue';
import type { EventsOf, State } from '@sse-gateway/client';
import { provideSse, useSse } from '@sse-gateway/client/vue';
import { z } from 'zod';

type Events = { 'price': { amount: number } };
const options = { url: '/events', ticketUrl: '/api/sse-ticket' };

const sse = provideSse<Events>(options);
const state: Readonly<Ref<State>> = sse.state;
sse.on('price', ({ amount }) => amount.toFixed());
// @ts-expect-error unknown event
sse.on('prices', () => {});
const price: Readonly<Ref<{ amount: number } | undefined>> = sse.latest('price');
const known: number = sse.latest('price', { amount: 0 }).value.amount;
// @ts-expect-error the initial value is undefined
sse.latest('price').value.amount;
// @ts-expect-error read-only
sse.state.value = 'open';
const id: string | undefined = useSse<Events>().lastEventId;
useSse().on('anything', (data) => data.whatever);
const schemas = { order: z.object({ n: z.number() }) };
provideSse<EventsOf<typeof schemas>>({ ...options, schemas }).on('order', ({ n }) => n.toFixed());
// @ts-expect-error url is required
provideSse({});
export default [state, price, known, id];
