// Starts the app, its worker, and all services that they need, and stops them when this process
// ends. Nothing is kept. `npm run build` first, or pass --dev.
import { existsSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Child } from '../dashboard/tools/child.js';
import { freePort, isFree } from '../dashboard/tools/ports.js';
import { startServices } from './tools/services.mjs';

const HERE = import.meta.dirname;
const children = [];
let stopping = false;

async function stop(code, error) {
  if (stopping) return;
  stopping = true;
  if (error) console.error(error);
  for (const child of children.toReversed()) await child.stop();
  process.exit(code);
}

/** Starts a program of the app. */
function start(script, args, env) {
  const program = path.join(HERE, 'node_modules', script);
  const child = new Child(process.execPath, [program, ...args], { ...process.env, ...env }, HERE);
  children.push(child);
  return child;
}

async function choosePort(text) {
  if (text === undefined) return await isFree(3000) ? 3000 : freePort();
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65_535) throw new Error(`Invalid port: ${text}. Example: --port 3000`);
  if (!await isFree(port)) throw new Error(`Port ${port} is in use. Choose another: --port 3001`);
  return port;
}

async function main() {
  const options = { port: { type: 'string' }, dev: { type: 'boolean', default: false } };
  const { values } = parseArgs({ options });
  if (!values.dev && !existsSync(path.join(HERE, '.next/BUILD_ID'))) {
    throw new Error('The app is not built: run `npm run build`, or pass --dev.');
  }
  const port = await choosePort(values.port);
  const url = `http://127.0.0.1:${port}`;
  const env = await startServices([url, `http://localhost:${port}`], children);

  const seed = start('tsx/dist/cli.mjs', ['scripts/seed.ts'], env);
  const [code] = await seed.exited;
  children.pop();
  if (code !== 0) throw new Error(`The seed script failed:\n${seed.output}`);

  const command = values.dev ? 'dev' : 'start';
  const app = start('next/dist/bin/next', [command, '-H', '127.0.0.1', '-p', `${port}`], env);
  start('tsx/dist/cli.mjs', ['scripts/worker.ts'], env);
  await app.printed((text) => text.includes('Ready in'));
  for (const child of children) {
    child.exited.then(() => stop(1, `${child.program} exited:\n${child.output}`));
  }
  console.log(`App: ${url}\nPress Ctrl-C to stop it and remove all data.`);
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => stop(0));
try {
  await main();
} catch (error) {
  await stop(1, error.message);
}
