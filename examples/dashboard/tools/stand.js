// A private Redis, a gateway and the backend, with a secret that nobody else knows. `end` leaves nothing of them.
import { randomBytes } from 'node:crypto';
import net from 'node:net';
import { serve } from '../backend/server.js';
import { Child } from './child.js';
import { gatewayProgram, redisProgram } from './programs.js';

/**
 * @param {object} options
 * @param {number} [options.port] of the page; without one 8088, or any free one if that is taken
 * @param {number} [options.gatewayPort] without one any free one
 * @param {number} [options.tick] ms between two points of the charts
 * @param {import('node:http').RequestListener} [options.page] instead of the built page
 */
export async function stand({ port, gatewayPort = 0, tick, page }) {
  const programs = { redis: redisProgram(), gateway: gatewayProgram() };
  const children = [];
  const end = async () => { for (const child of children.toReversed()) await child.end(); };
  const start = (...of) => {
    const child = new Child(...of);
    children.push(child);
    return child;
  };
  try {
    const own = port ?? (await isFree(8088) ? 8088 : await anyFree());
    if (!await isFree(own)) throw new Error(`Port ${own} is taken. Give another: --port 8089, or PORT=8089.`);
    const redisPort = await anyFree();
    const redis = `redis://127.0.0.1:${redisPort}`;
    const secret = randomBytes(32).toString('hex');

    const server = start(programs.redis, ['--port', `${redisPort}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', '/', '--maxmemory-policy', 'noeviction']);
    await server.printed((text) => text.includes('Ready to accept connections'));

    const gateway = start(programs.gateway, ['serve'], {
      ...process.env,
      SSE_GATEWAY__SERVER__LISTEN: `127.0.0.1:${gatewayPort}`,
      SSE_GATEWAY__ADMIN__LISTEN: '127.0.0.1:0',
      SSE_GATEWAY__REDIS__URL: redis,
      SSE_GATEWAY__TICKETS__SECRET: secret,
      SSE_GATEWAY__CORS__ALLOWED_ORIGINS: `http://127.0.0.1:${own},http://localhost:${own}`,
      SSE_GATEWAY__DRAIN__DELAY: '0s',
      SSE_GATEWAY__DRAIN__WINDOW: '0s',
      SSE_GATEWAY__LOG__FORMAT: 'json',
    });
    const { public: listen, admin } = await gateway.printed(listening);
    await ready(`http://${admin}/readyz`);

    const backend = await serve({ port: own, gateway: `http://${listen}`, redis, secret, tick, page });
    return {
      url: backend.url,
      /** Resolves with the program that ended by itself. */
      failed: Promise.race(children.map((child) => child.ended.then(() => child))),
      end: async () => {
        backend.close();
        await end();
      },
    };
  } catch (error) {
    await end();
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
