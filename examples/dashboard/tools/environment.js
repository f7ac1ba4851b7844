// Starts `sse-gateway dev` (gateways with a private Redis) and the backend, with a new secret.
import { randomBytes } from 'node:crypto';
import { serve } from '../backend/server.js';
import { Child } from './child.js';
import { freePort, isFree } from './ports.js';
import { gatewayProgram } from './programs.js';

/** Id of the backend's signing key; `dev` has another key for its own page. */
const KID = 'dashboard';

/**
 * Starts the gateway, its Redis and the backend. Resolves to { url, failed, stop }.
 * @param {object} options
 * @param {number} [options.port] port of the page. Default: 8088, or a free port if that is in use
 * @param {number} [options.gatewayPort] default: a free port
 * @param {number} [options.tick] interval between chart points, in ms
 * @param {import('node:http').RequestListener} [options.page] replaces the built page
 */
export async function startEnvironment({ port, gatewayPort = 0, tick, page }) {
  const program = gatewayProgram();
  const pagePort = port ?? (await isFree(8088) ? 8088 : await freePort());
  if (!await isFree(pagePort)) {
    throw new Error(`Port ${pagePort} is in use. Choose another: --port 8089, or PORT=8089.`);
  }
  const secret = randomBytes(32).toString('hex');
  const gateway = new Child(program, ['dev', '--listen', `127.0.0.1:${gatewayPort}`], {
    ...process.env,
    SSE_GATEWAY__TICKETS__KEYS: JSON.stringify([{ kid: KID, algorithm: 'HS256', secret }]),
    SSE_GATEWAY__CORS__ALLOWED_ORIGINS: `http://127.0.0.1:${pagePort},http://localhost:${pagePort}`,
  });
  try {
    // Printed when the gateway is connected to Redis and has loaded its functions.
    const address = await gateway.printed((text) => /http:\/\/(\S+)\/\n/.exec(text)?.[1]);
    const redisPort = await gateway.printed((text) => /redis-cli -p (\d+) /.exec(text)?.[1]);
    const backend = await serve({
      port: pagePort,
      gateway: `http://${address}`,
      redis: `redis://127.0.0.1:${redisPort}`,
      secret,
      kid: KID,
      tick,
      page,
    });
    return {
      url: backend.url,
      /** Resolves to the child process if it exits by itself. */
      failed: gateway.exited.then(() => gateway),
      stop: async () => {
        backend.close();
        await gateway.stop();
      },
    };
  } catch (error) {
    await gateway.stop();
    throw error;
  }
}
