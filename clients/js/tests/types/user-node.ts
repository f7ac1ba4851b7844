// Compiled without the types of a browser, never run.
import { connect } from 'sse-gateway-client';

connect({ url: 'http://gateway/events', ticket: () => 'jwt', polling: 'only' }).on('order', (order) => order.id);
