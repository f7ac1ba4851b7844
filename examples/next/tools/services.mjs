// Starts the services of the app: Redis, Postgres and a gateway. They end with this process.
import { randomBytes } from 'node:crypto';
import { accessSync, constants } from 'node:fs';
import path from 'node:path';
import { Child } from '../../dashboard/tools/child.js';
import { freePort } from '../../dashboard/tools/ports.js';
import { gatewayProgram } from '../../dashboard/tools/programs.js';
import { startPostgres } from './postgres.mjs';

/**
 * Resolves to the environment of the app.
 * @param {string[]} origins the app's origins
 * @param {Child[]} children receives what was started, also if this rejects
 */
export async function startServices(origins, children) {
  const gateway = gatewayProgram();
  const redis = redisProgram();
  const postgres = await startPostgres();
  children.push(postgres.child);

  const redisPort = await freePort();
  const redisUrl = `redis://127.0.0.1:${redisPort}`;
  const secret = randomBytes(32).toString('hex');
  children.push(new Child(redis, ['--bind', '127.0.0.1', '--port', `${redisPort}`, '--save', '']));
  await children.at(-1).printed((text) => text.includes('Ready to accept connections'));

  children.push(new Child(gateway, ['serve'], {
    ...process.env,
    SSE_GATEWAY__SERVER__LISTEN: '127.0.0.1:0',
    SSE_GATEWAY__ADMIN__LISTEN: '127.0.0.1:0',
    SSE_GATEWAY__REDIS__URL: redisUrl,
    SSE_GATEWAY__TICKETS__SECRET: secret,
    SSE_GATEWAY__CORS__ALLOWED_ORIGINS: origins.join(),
    SSE_GATEWAY__DRAIN__DELAY: '0s',
    SSE_GATEWAY__DRAIN__WINDOW: '100ms',
    SSE_GATEWAY__LOG__FORMAT: 'json',
  }));
  const { public: address, admin } = await children.at(-1).printed(findListening);
  await waitUntilReady(`http://${admin}/readyz`);
  return {
    DATABASE_URL: postgres.url,
    REDIS_URL: redisUrl,
    GATEWAY_URL: `http://${address}`,
    TICKET_SECRET: secret,
  };
}

function redisProgram() {
  for (const folder of (process.env.PATH ?? '').split(path.delimiter).filter(Boolean)) {
    for (const name of ['redis-server', 'valkey-server']) {
      try {
        accessSync(path.join(folder, name), constants.X_OK);
        return path.join(folder, name);
      } catch { /* the next one */ }
    }
  }
  throw new Error('Neither redis-server nor valkey-server was found in PATH. '
    + 'Install one: apt-get install redis-server');
}

/** Returns the gateway's "listening" log record: { public, admin }. */
function findListening(text) {
  const isListening = (line) => line.includes('"message":"listening"') && line.endsWith('}');
  const line = text.split('\n').find(isListening);
  return line && JSON.parse(line);
}

/** The gateway is ready when it is connected to Redis and has loaded its functions. */
async function waitUntilReady(url) {
  for (const deadline = Date.now() + 20_000; Date.now() < deadline;) {
    if ((await fetch(url)).ok) return;
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
  throw new Error(`The gateway is not ready: ${await (await fetch(url)).text()}`);
}
