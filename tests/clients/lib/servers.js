// Redis and gateway processes that are stopped with the test.
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Redis as Client } from 'ioredis';
import jwt from 'jsonwebtoken';
import { folder, freePort, kill, printed, start, until } from './processes.js';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
export const BINARY = path.resolve(
  process.env.SSE_GATEWAY_BIN ?? path.join(root, 'target/debug/sse-gateway'),
);
export const PYTHON = path.resolve(
  process.env.SSE_GATEWAY_PYTHON ?? path.join(root, '.cache/venv/bin/python'),
);
if (!existsSync(BINARY))
  throw new Error(`no gateway at ${BINARY}: run "make test-build", or set SSE_GATEWAY_BIN`);

export const SECRET = 'a secret for tests only, long enough for HS256';

/** A redis-server process on a free port, or the program that the variable REDIS_SERVER names. */
export class Redis {
  static async start(t, port) {
    const redis = new Redis();
    redis.port = port ?? await freePort();
    redis.url = `redis://127.0.0.1:${redis.port}`;
    redis.process = start(process.env.REDIS_SERVER ?? 'redis-server', [
      '--bind', '127.0.0.1', '--port', String(redis.port), '--save', '', '--appendonly', 'no',
      '--maxmemory-policy', 'noeviction', '--proto-max-bulk-len', '1mb',
      '--dir', folder(t, 'redis'),
    ]);
    t.after(() => kill(redis.process));
    await printed(
      redis.process,
      ({ out }) => out.includes('Ready to accept connections'),
      'that it is ready',
    );
    return redis;
  }

  client(t) {
    const client = new Client(this.port, '127.0.0.1', { disconnectTimeout: 100 });
    client.on('error', () => { /* every call rejects on its own */ });
    t.after(() => client.disconnect());
    return client;
  }
}

/** A gateway process (`sse-gateway serve`). */
export class Gateway {
  /**
   * Starts a gateway. `settings`: keys as in the configuration file. `ready: false`: do not wait
   * until it is ready.
   */
  static async start(t, { redis, settings = {}, port = 0, ready = true } = {}) {
    const gateway = new Gateway();
    const all = {
      'server.listen': `127.0.0.1:${port}`,
      'admin.listen': '127.0.0.1:0',
      'redis.url': typeof redis === 'string' ? redis : redis.url,
      'tickets.secret': SECRET,
      'server.retry': '200ms',
      'drain.delay': '0s',
      'drain.window': '100ms',
      'log.format': 'json',
      ...settings,
    };
    const env = { PATH: process.env.PATH, HOME: process.env.HOME };
    for (const [key, value] of Object.entries(all))
      env[`SSE_GATEWAY__${key.toUpperCase().replaceAll('.', '__')}`] = value;
    gateway.process = start(BINARY, ['serve'], { env });
    t.after(() => kill(gateway.process));
    const { public: listen, admin } = await printed(
      gateway.process,
      ({ err }) => listening(err),
      'its address',
    );
    gateway.url = `http://${listen}`;
    gateway.admin = `http://${admin}`;
    gateway.port = Number(listen.split(':').at(-1));
    if (ready) await until(() => gateway.ready(), () => `not ready:\n${gateway.process.err}`);
    return gateway;
  }

  async ready() {
    try { return (await fetch(`${this.admin}/readyz`)).status === 200; } catch { return false; }
  }

  /** Resolves to the value of a metric; the name includes its labels. 0 if it does not exist. */
  async metric(name) {
    const line = (await (await fetch(`${this.admin}/metrics`)).text())
      .split('\n')
      .find((line) => line.startsWith(`${name} `));
    return Number(line?.slice(name.length) ?? 0);
  }

  /** Waits until this instance records plain messages; earlier ones may be lost. */
  records() {
    const isWriter = async () =>
      /^sse_recorder_role\{role="writer"\} 1$/m.test(
        await (await fetch(`${this.admin}/metrics`)).text(),
      );
    return until(isWriter, () => `not the recorder:\n${this.process.err}`);
  }

  /** Returns the URL of a stream for a user. `ttl` in seconds. */
  events(user, { ttl = 30, topics } = {}) {
    return `${this.url}/events?ticket=${ticket(user, { ttl, topics })}`;
  }

  /** kill -9. */
  crash() { return kill(this.process); }
  /** SIGTERM. Resolves to { code, signal }. */
  stop() { return kill(this.process, 'SIGTERM'); }
}

/** Returns a ticket created with a JWT library, as in a backend. */
export function ticket(user, { ttl = 30, topics, presence } = {}) {
  const claims = { ...(topics && { topics }), ...(presence && { presence }) };
  return jwt.sign(claims, SECRET, {
    algorithm: 'HS256',
    subject: user,
    audience: 'sse-gateway',
    expiresIn: ttl,
    jwtid: randomUUID(),
  });
}

function listening(log) {
  for (const line of log.split('\n')) {
    try {
      const record = JSON.parse(line);
      if (record.message === 'listening') return record;
    } catch { /* not a log record, or incomplete */ }
  }
  return null;
}
