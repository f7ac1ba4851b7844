// Child processes of the tests: started, awaited and killed by id, also if a test fails or is
// interrupted.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';

/**
 * Timeout, in ms, that only ends a test that hangs. It is never part of a measurement. Longer than
 * the 30 s for which `sse.busy` may send a client away.
 */
export const TIMEOUT = 60_000;

const alive = new Set();
process.on('exit', () => { for (const child of alive) child.kill('SIGKILL'); });
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

/** Starts a process and records its output. `exited` resolves to { code, signal }. */
export function start(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  alive.add(child);
  child.out = '';
  child.err = '';
  child.stdout.setEncoding('utf8').on('data', (text) => {
    child.out += text;
    child.emit('printed');
  });
  child.stderr.setEncoding('utf8').on('data', (text) => {
    child.err += text;
    child.emit('printed');
  });
  child.exited = new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      alive.delete(child);
      child.emit('printed');
      resolve({ code, signal });
    });
  });
  child.exited.catch(() => alive.delete(child));
  return child;
}

/** Resolves to the first truthy result of `found(child)`, called after each output. */
export async function printed(child, found, what) {
  const search = (async () => {
    for (;;) {
      const value = found(child);
      if (value) return value;
      if (child.exitCode !== null || child.signalCode !== null) {
        await child.exited;
        const last = found(child);
        if (last) return last;
        throw new Error(
          `${child.spawnfile} exited before it printed ${what}:\n${child.out}${child.err}`,
        );
      }
      await once(child, 'printed');
    }
  })();
  return withTimeout(
    search,
    () => `${child.spawnfile} did not print ${what}:\n${child.out}${child.err}`,
  );
}

/** Runs a command and resolves to its output. Rejects if it fails. */
export async function run(command, args, options) {
  const child = start(command, args, options);
  const { code, signal } = await withTimeout(child.exited, () => `${command} did not exit`);
  if (code !== 0)
    throw new Error(`${command} exited with ${code ?? signal}:\n${child.out}${child.err}`);
  return child.out;
}

/** Sends a signal and waits for the exit. */
export async function kill(child, signal = 'SIGKILL') {
  child.kill(signal);
  return withTimeout(
    child.exited,
    () => `${child.spawnfile} did not exit after ${signal}:\n${child.err}`,
  );
}

/** Resolves to the promise's value, or rejects with `what` after the timeout. */
export async function withTimeout(promise, what, timeout = TIMEOUT) {
  let timer;
  const timedOut = new Promise((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(typeof what === 'function' ? what() : what)),
      timeout,
    );
  });
  try { return await Promise.race([promise, timedOut]); } finally { clearTimeout(timer); }
}

/** Polls a condition. Only for what cannot be awaited, such as the exit of an unrelated process. */
export async function until(condition, what, timeout = TIMEOUT) {
  const end = Date.now() + timeout;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(typeof what === 'function' ? what() : what);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** Finds a free port below the ephemeral range, so that no outgoing connection takes it. */
export async function freePort() {
  for (;;) {
    const port = 15_000 + Math.floor(Math.random() * 15_000);
    const server = net.createServer();
    const free = await new Promise((resolve) => {
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
    });
    if (free) return port;
  }
}

/**
 * Forwards connections to a port: { port, cut(), restore() }. While it is cut, connections are
 * refused.
 */
export async function tcpProxy(t, to) {
  const sockets = new Set();
  const server = net.createServer((near) => {
    const far = net.connect(to, '127.0.0.1');
    for (const [one, other] of [[near, far], [far, near]]) {
      sockets.add(one);
      one
        .on('error', () => other.destroy())
        .on('close', () => {
          sockets.delete(one);
          other.destroy();
        });
      one.pipe(other);
    }
  });
  const open = (port) =>
    new Promise((resolve, reject) => {
      server.once('error', reject).listen(port, '127.0.0.1', resolve);
    });
  const cut = () => { server.close(); for (const socket of sockets) socket.destroy(); };
  const port = await freePort();
  await open(port);
  t.after(cut);
  return { port, cut, restore: () => open(port) };
}

/** Creates a temporary folder. Returns its path, and what removes it. */
export function temporaryFolder(name) {
  const created = mkdtempSync(path.join(os.tmpdir(), `sse-clients-${name}-`));
  // The children of a killed process may still write for a moment.
  const remove = () => rmSync(created, { recursive: true, force: true, maxRetries: 20 });
  return { path: created, remove };
}

/** Creates a temporary folder that is removed after the test. */
export function folder(t, name = 'test') {
  const created = temporaryFolder(name);
  t.after(created.remove);
  return created.path;
}

/** Returns the ids of the running children of a process. */
export function children(parent) {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => status(pid)?.parent === parent);
}

/** Whether a process is running. A zombie is not. */
export function isRunning(pid) {
  const found = status(pid);
  return Boolean(found) && found.state !== 'Z' && found.state !== 'X';
}

function status(pid) {
  try {
    const line = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state, parent] = line.slice(line.lastIndexOf(')') + 2).split(' ');
    return { state, parent: Number(parent) };
  } catch { return null; }
}

/** Returns the working directory and the open files of a process. */
export function openPaths(pid) {
  const files = [readlinkSync(`/proc/${pid}/cwd`)];
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      files.push(readlinkSync(`/proc/${pid}/fd/${fd}`));
    } catch {
      /* closed in the meantime */
    }
  }
  return files.filter((file) => /^\/(?!proc\/|dev\/(?!shm\/))/.test(file));
}
