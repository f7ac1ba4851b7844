// The whole example in one command: `sse-gateway dev` and the backend, gone with this process.
import { parseArgs } from 'node:util';
import { stand } from './tools/stand.js';

const USAGE = 'npm start -- [--port 8088] [--gateway-port 8080]   (or PORT, GATEWAY_PORT)';

function settings() {
  const { values } = parseArgs({
    options: { 'port': { type: 'string' }, 'gateway-port': { type: 'string' }, 'dev': { type: 'boolean' } },
  });
  return {
    port: number(values.port ?? process.env.PORT),
    gatewayPort: number(values['gateway-port'] ?? process.env.GATEWAY_PORT),
    dev: values.dev,
  };
}

function number(text) {
  if (text === undefined || text === '') return undefined;
  if (!/^\d{1,5}$/.test(text) || Number(text) > 65_535) throw new Error(`${text} is no port.\n${USAGE}`);
  return Number(text);
}

/** Vite's own server, which builds the page as it is edited, within the backend's. */
async function vite() {
  const { createServer } = await import('vite');
  const server = await createServer({ root: import.meta.dirname, server: { middlewareMode: true } });
  return server.middlewares;
}

try {
  const { dev, ...ports } = settings();
  const running = await stand({ ...ports, page: dev ? await vite() : undefined });
  let ending = false;
  const end = async (code, why) => {
    if (ending) return;
    ending = true;
    if (why) console.error(why);
    await running.end();
    process.exit(code);
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => end(0));
  running.failed.then((child) => end(1, `${child.program} ended:\n${child.output}`));
  console.log(`The dashboard: ${running.url}\nCtrl-C ends it all; nothing stays behind.`);
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
