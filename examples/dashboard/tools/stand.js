// `sse-gateway dev` (a gateway with a Redis of its own) and the backend, with a secret that nobody else knows. `end` leaves nothing of them.
import { randomBytes } from 'node:crypto';
import net from 'node:net';
import { serve } from '../backend/server.js';
import { Child } from './child.js';
import { gatewayProgram } from './programs.js';

/** The name of the key with which the backend signs; `dev` has another one for its own page. */
const KID = 'dashboard';

/**
 * @param {object} options
 * @param {number} [options.port] of the page; without one 8088, or any free one if that is taken
 * @param {number} [options.gatewayPort] without one any free one
 * @param {number} [options.tick] ms between two points of the charts
 * @param {import('node:http').RequestListener} [options.page] instead of the built page
 */
export async function stand({ port, gatewayPort = 0, tick, page }) {
  const program = gatewayProgram();
  const own = port ?? (await isFree(8088) ? 8088 : await anyFree());
  if (!await isFree(own)) throw new Error(`Port ${own} is taken. Give another: --port 8089, or PORT=8089.`);
  const secret = randomBytes(32).toString('hex');
  const gateway = new Child(program, ['dev', '--listen', `127.0.0.1:${gatewayPort}`], {
    ...process.env,
    SSE_GATEWAY__TICKETS__KEYS: JSON.stringify([{ kid: KID, algorithm: 'HS256', secret }]),
    SSE_GATEWAY__CORS__ALLOWED_ORIGINS: `http://127.0.0.1:${own},http://localhost:${own}`,
    SSE_GATEWAY__LOG__FORMAT: 'json',
    SSE_GATEWAY__LOG__LEVEL: 'info',
  });
  try {
    const { public: listen, admin } = await gateway.printed(listening);
    await ready(`http://${admin}/readyz`);
    const redis = await gateway.printed((text) => /redis-cli -p (\d+) /.exec(text)?.[1]);
    const backend = await serve({ port: own, gateway: `http://${listen}`, redis: `redis://127.0.0.1:${redis}`, secret, kid: KID, tick, page });
    return {
      url: backend.url,
      /** Resolves with the program that ended by itself. */
      failed: gateway.ended.then(() => gateway),
      end: async () => {
        backend.close();
        await gateway.end();
      },
    };
  } catch (error) {
    await gateway.end();
    throw error;
  }
}

/** What the gateway says when it listens: { public, admin }. */
function listening(text) {
  const line = text.split('\n').find((line) => line.includes('"message":"listening"') && line.endsWith('}'));
  return line && JSON.parse(line);
}

/** The gateway serves once it has its link to Redis, and its functions are there. */
async function ready(url) {
  for (const deadline = Date.now() + 20_000; Date.now() < deadline;) {
    if ((await fetch(url)).ok) return;
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
  throw new Error(`The gateway is not ready: ${await (await fetch(url)).text()}`);
}

function listen(port) {
  const server = net.createServer();
  return new Promise((resolve, reject) => { server.once('error', reject).listen(port, '127.0.0.1', () => resolve(server)); });
}

async function isFree(port) {
  try {
    (await listen(port)).close();
    return true;
  } catch { return false; }
}

async function anyFree() {
  const server = await listen(0);
  const { port } = server.address();
  await new Promise((resolve) => { server.close(resolve); });
  return port;
}
