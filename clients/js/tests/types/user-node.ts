// Only compiled, without the browser's types.
import { connect } from '@sse-gateway/client';

connect({ url: 'http://gateway/events', ticket: () => 'jwt', polling: 'only' }).on(
  'order',
  (order) => order.id,
);
