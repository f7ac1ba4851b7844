// Starts `sse-gateway dev` and the backend, and stops them when this process ends.
import { parseArgs } from 'node:util';
import { startEnvironment } from './tools/environment.js';

const USAGE = 'npm start -- [--port 8088] [--gateway-port 8080]   (or PORT, GATEWAY_PORT)';

function settings() {
  const { values } = parseArgs({
    options: {
      'port': { type: 'string' },
      'gateway-port': { type: 'string' },
      'dev': { type: 'boolean' },
    },
  });
  return {
    port: parsePort(values.port ?? process.env.PORT),
    gatewayPort: parsePort(values['gateway-port'] ?? process.env.GATEWAY_PORT),
    dev: values.dev,
  };
}

function parsePort(text) {
  if (text === undefined || text === '') return undefined;
  if (!/^\d{1,5}$/.test(text) || Number(text) > 65_535) {
    throw new Error(`Invalid port: ${text}\nUsage: ${USAGE}`);
  }
  return Number(text);
}

/** Vite's development server as a request handler: rebuilds the page while it is edited. */
async function vite() {
  const { createServer } = await import('vite');
  const server = await createServer({
    root: import.meta.dirname,
    server: { middlewareMode: true },
  });
  return server.middlewares;
}

try {
  const { dev, ...ports } = settings();
  const running = await startEnvironment({ ...ports, page: dev ? await vite() : undefined });
  let stopping = false;
  const stop = async (code, error) => {
    if (stopping) return;
    stopping = true;
    if (error) console.error(error);
    await running.stop();
    process.exit(code);
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => stop(0));
  running.failed.then((child) => stop(1, `${child.program} exited:\n${child.output}`));
  console.log(`Dashboard: ${running.url}\nPress Ctrl-C to stop it and remove all data.`);
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
