// The differences between Redis clients.

/** ioredis: `new Redis()` or `new Cluster()`. */
export interface Ioredis {
  fcall(...args: any[]): Promise<unknown>;
  xgroup(...args: any[]): Promise<unknown>;
  xautoclaim(...args: any[]): Promise<unknown>;
  xreadgroup(...args: any[]): Promise<unknown>;
  xack(...args: any[]): Promise<unknown>;
}

/** node-redis: `createClient()`, `createClientPool()`, `createCluster()` or `createSentinel()`. */
export interface NodeRedis {
  fCall(name: string, options: { keys: string[]; arguments: string[] }): Promise<any>;
  xGroupCreate(...args: any[]): Promise<any>;
  xAutoClaim(...args: any[]): Promise<any>;
  xReadGroup(...args: any[]): Promise<any>;
  xAck(...args: any[]): Promise<any>;
}

export type RedisClient = Ioredis | NodeRedis;

/** An entry of a Redis stream: its id, and its fields. */
export type Entry = [id: string, fields: Record<string, string>];

const isNodeRedis = (client: RedisClient): client is NodeRedis => 'fCall' in client;

export async function callFunction(
  client: RedisClient, name: string, key: string, args: string[],
): Promise<string> {
  const reply = isNodeRedis(client)
    ? await client.fCall(name, { keys: [key], arguments: args })
    : await client.fcall(name, 1, key, ...args);
  return String(reply);
}

/** A consumer of a group, on a Redis stream. */
export class Consumer {
  constructor(
    private readonly client: RedisClient,
    private readonly stream: string,
    private readonly group: string,
    private readonly name: string,
  ) {}

  async createGroup() {
    const { client, stream, group } = this;
    try {
      if (isNodeRedis(client)) await client.xGroupCreate(stream, group, '0', { MKSTREAM: true });
      else await client.xgroup('CREATE', stream, group, '0', 'MKSTREAM');
    } catch (error) {
      if (!String((error as Error).message).startsWith('BUSYGROUP')) throw error;
    }
  }

  /** Takes over entries that another consumer read `idle` ms ago and did not acknowledge. */
  async claim(idle: number, count: number): Promise<Entry[]> {
    const { client, stream, group, name } = this;
    if (isNodeRedis(client)) {
      const { messages } = await client.xAutoClaim(
        stream, group, name, idle, '0', { COUNT: count });
      return messages.filter(Boolean).map(entryOfNodeRedis);
    }
    const [, found] = (await client.xautoclaim(
      stream, group, name, idle, '0', 'COUNT', count,
    )) as [string, unknown[]];
    return found.map(entryOfIoredis);
  }

  /** Reads entries that no consumer has read. */
  async read(count: number): Promise<Entry[]> {
    const { client, stream, group, name } = this;
    if (isNodeRedis(client)) {
      const found = await client.xReadGroup(
        group, name, { key: stream, id: '>' }, { COUNT: count });
      return (found?.[0]?.messages ?? []).map(entryOfNodeRedis);
    }
    const found = (await client.xreadgroup(
      'GROUP', group, name, 'COUNT', count, 'STREAMS', stream, '>',
    )) as [string, unknown[]][] | null;
    return (found?.[0]?.[1] ?? []).map(entryOfIoredis);
  }

  async acknowledge(ids: string[]) {
    const { client, stream, group } = this;
    if (isNodeRedis(client)) await client.xAck(stream, group, ids);
    else await client.xack(stream, group, ...ids);
  }
}

function entryOfNodeRedis(entry: { id: string; message: Record<string, string> }): Entry {
  return [entry.id, entry.message];
}

function entryOfIoredis(entry: unknown): Entry {
  const [id, list] = entry as [string, string[]];
  const fields: Record<string, string> = {};
  for (let n = 0; n + 1 < list.length; n += 2) fields[list[n]!] = list[n + 1]!;
  return [id, fields];
}
