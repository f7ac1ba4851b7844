// Redis clients, and what a gateway delivers.
import { Cluster, Redis } from 'ioredis';
import { createClient, createClientPool, createCluster } from 'redis';

export const env = process.env;
export const SECRET = env.TICKET_SECRET;
const nodes = env.SSE_TEST_CLUSTER.split(',').map((node) => {
  const [host, port] = node.split(':');
  return { host, port: Number(port) };
});

const quiet = (client) => client.on('error', () => { /* every call rejects on its own */ });

/** Makers of clients for a single server, by name. */
export const CLIENTS = {
  ioredis: async (t, url, options = {}) => {
    const client = quiet(new Redis(url, options));
    t.after(() => client.disconnect());
    return client;
  },
  'node-redis': async (t, url, options = {}) => {
    const client = quiet(createClient({ url, ...options }));
    t.after(() => client.destroy());
    await client.connect();
    return client;
  },
  'node-redis, RESP2': (t, url) => CLIENTS['node-redis'](t, url, { RESP: 2 }),
  'node-redis pool': async (t, url) => {
    const client = quiet(createClientPool({ url }));
    t.after(() => client.destroy());
    await client.connect();
    return client;
  },
};

/** Makers of clients for the cluster, by name. */
export const CLUSTER_CLIENTS = {
  ioredis: async (t) => {
    const client = quiet(new Cluster(nodes.slice(0, 1)));
    t.after(() => client.disconnect());
    return client;
  },
  'node-redis': async (t) => {
    const [{ host, port }] = nodes;
    const client = quiet(createCluster({ rootNodes: [{ url: `redis://${host}:${port}` }] }));
    t.after(() => client.destroy());
    await client.connect();
    return client;
  },
};

/**
 * Reads the stream of a ticket from now on. `next()` resolves to { id, event, data }, and `close()`
 * ends it.
 */
export async function open(t, gateway, ticket) {
  const abort = new AbortController();
  t.after(() => abort.abort());
  const response = await fetch(`${gateway}/events?ticket=${ticket}`, { signal: abort.signal });
  if (response.status !== 200) throw new Error(`${response.status}: ${await response.text()}`);
  const events = parse(response.body.pipeThrough(new TextDecoderStream()));
  const next = async () => {
    for (;;) {
      const { value } = await events.next();
      if (value.event && value.event !== 'sse.heartbeat') return value;
    }
  };
  const connected = await next();
  return { connected: JSON.parse(connected.data), next, close: () => abort.abort() };
}

async function* parse(chunks) {
  let rest = '';
  for await (const chunk of chunks) {
    rest += chunk;
    const blocks = rest.split('\n\n');
    rest = blocks.pop();
    for (const block of blocks)
      yield Object.fromEntries(block.split('\n').map((line) => line.split(/: ?([^]*)/)));
  }
}
