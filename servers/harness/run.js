// Runs a command beside Redis servers and gateways, for the tests of a server library:
//
//     node servers/harness/run.js <folder> <command> [argument ..]
//
// The environment of the command says where they are:
// - SSE_TEST_REDIS: a server. SSE_TEST_GATEWAY: its gateway. SSE_TEST_PREFIXED_GATEWAY: another
//   one, with the prefixes `shop-1:` (keys) and `shop:` (channels).
// - SSE_TEST_CLUSTER: the nodes of a cluster. SSE_TEST_CLUSTER_GATEWAY: its gateway.
// - SSE_TEST_UNADOPTED: a server that replies `SSE not-adopted`, until the process with the id
//   SSE_TEST_STOPPED_GATEWAY gets SIGCONT.
// - SSE_TEST_CLOSED: no server. TICKET_SECRET: the secret of all gateways.
// - SSE_TEST_ROOT: the root of the repository.
import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Gateway, SECRET } from '../../tests/clients/lib/servers.js';
import {
  freePort, printed, start, temporaryFolder, until,
} from '../../tests/clients/lib/processes.js';

const READY = 'Ready to accept connections';
const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

/** Stands in for the context of a test: what is registered ends with the command. */
const ends = [];
const t = { after: (end) => ends.unshift(end) };

/** Starts redis-server with additional arguments. Resolves to { process, port, url }. */
async function redis(folder, args = [], port) {
  port ??= await freePort();
  const server = start(process.env.REDIS_SERVER ?? 'redis-server', [
    '--bind', '127.0.0.1', '--port', String(port), '--save', '', '--appendonly', 'no',
    '--maxmemory-policy', 'noeviction', '--proto-max-bulk-len', '1mb', '--dir', folder, ...args,
  ]);
  t.after(async () => { server.kill('SIGKILL'); await server.exited; });
  await printed(server, ({ out }) => out.includes(READY), 'that it is ready');
  return { process: server, port, url: `redis://127.0.0.1:${port}` };
}

async function cli(port, ...args) {
  const child = start('redis-cli', ['-p', String(port), ...args]);
  await child.exited;
  return child.out.trim();
}

function folder(name) {
  const created = temporaryFolder(name);
  t.after(() => rmSync(created.path, { recursive: true, force: true }));
  return created.path;
}

/** A server, a gateway, and another gateway with other prefixes. */
async function single() {
  const server = await redis(folder('servers'));
  const [gateway, prefixed] = await Promise.all([
    Gateway.start(t, { redis: server.url }),
    Gateway.start(t, {
      redis: server.url,
      settings: { 'redis.key_prefix': 'shop-1:', 'redis.channel_prefix': 'shop:' },
    }),
  ]);
  return {
    SSE_TEST_REDIS: server.url,
    SSE_TEST_GATEWAY: gateway.url,
    SSE_TEST_PREFIXED_GATEWAY: prefixed.url,
  };
}

/** A cluster of three masters, and a gateway. */
async function cluster() {
  const node = async () => {
    const bus = await freePort();
    const args = ['--cluster-enabled', 'yes', '--cluster-port', String(bus)];
    return { bus, ...(await redis(folder('servers'), args)) };
  };
  const nodes = await Promise.all([node(), node(), node()]);
  const ports = nodes.map((node) => node.port);
  const bounds = [0, 5461, 10923, 16384];
  await Promise.all(ports.map(async (port, n) => {
    await cli(port, 'CLUSTER', 'SET-CONFIG-EPOCH', String(n + 1));
    await cli(port, 'CLUSTER', 'ADDSLOTSRANGE', String(bounds[n]), String(bounds[n + 1] - 1));
  }));
  for (const { port, bus } of nodes)
    await cli(ports[0], 'CLUSTER', 'MEET', '127.0.0.1', String(port), String(bus));
  const isComplete = async (port) => {
    const info = await cli(port, 'CLUSTER', 'INFO');
    return info.includes('cluster_state:ok') && info.includes('cluster_known_nodes:3');
  };
  const areComplete = async () => (await Promise.all(ports.map(isComplete))).every(Boolean);
  await until(areComplete, 'the cluster did not form');
  const gateway = await Gateway.start(t, {
    redis: `redis+cluster://${ports.map((port) => `127.0.0.1:${port}`).join(',')}`,
  });
  return {
    SSE_TEST_CLUSTER: ports.map((port) => `127.0.0.1:${port}`).join(','),
    SSE_TEST_CLUSTER_GATEWAY: gateway.url,
  };
}

/** A server that was restarted while its gateway is stopped: it replies `SSE not-adopted`. */
async function unadopted() {
  const directory = folder('servers');
  const before = await redis(directory);
  const gateway = await Gateway.start(t, {
    redis: before.url,
    settings: { 'redis.fence': 'strict' },
  });
  await cli(before.port, 'SAVE');
  gateway.process.kill('SIGSTOP');
  before.process.kill('SIGKILL');
  await before.process.exited;
  const after = await redis(directory, [], before.port);
  return { SSE_TEST_UNADOPTED: after.url, SSE_TEST_STOPPED_GATEWAY: String(gateway.process.pid) };
}

async function main([directory, command, ...args]) {
  const all = await Promise.all([single(), cluster(), unadopted()]);
  const child = spawn(command, args, {
    cwd: path.resolve(directory),
    stdio: 'inherit',
    env: {
      ...process.env,
      ...Object.assign({}, ...all),
      SSE_TEST_CLOSED: `redis://127.0.0.1:${await freePort()}`,
      SSE_TEST_ROOT: root,
      TICKET_SECRET: SECRET,
    },
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve(code ?? 1));
  });
}

let code = 1;
try {
  code = await main(process.argv.slice(2));
} catch (error) {
  console.error(error);
} finally {
  for (const end of ends) await end();
}
process.exit(code);
