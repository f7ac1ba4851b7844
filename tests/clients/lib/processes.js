// Real processes for the tests: started, awaited, and killed by their own id, also when a test fails or is interrupted.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';

/** How long anything may take before a test says it hangs. Never part of what a test measures. */
export const GUARD = 30_000;

const alive = new Set();
process.on('exit', () => { for (const child of alive) child.kill('SIGKILL'); });
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

/** Starts a process and keeps what it prints. `exited` resolves to { code, signal }. */
export function start(command, args, options = {}) {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
  alive.add(child);
  child.out = '';
  child.err = '';
  child.stdout.setEncoding('utf8').on('data', (text) => { child.out += text; child.emit('printed'); });
  child.stderr.setEncoding('utf8').on('data', (text) => { child.err += text; child.emit('printed'); });
  child.exited = new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => { alive.delete(child); child.emit('printed'); resolve({ code, signal }); });
  });
  child.exited.catch(() => alive.delete(child));
  return child;
}

/** What `found` makes of the process's output, as soon as that is not empty. */
export async function printed(child, found, what) {
  const search = (async () => {
    for (;;) {
      const value = found(child);
      if (value) return value;
      if (child.exitCode !== null || child.signalCode !== null) {
        await child.exited;
        const last = found(child);
        if (last) return last;
        throw new Error(`${child.spawnfile} ended before it printed ${what}:\n${child.out}${child.err}`);
      }
      await once(child, 'printed');
    }
  })();
  return within(search, () => `${child.spawnfile} does not print ${what}:\n${child.out}${child.err}`);
}

/** Runs a command to its end; its output. Fails if it fails. */
export async function run(command, args, options) {
  const child = start(command, args, options);
  const { code, signal } = await within(child.exited, () => `${command} does not end`);
  if (code !== 0) throw new Error(`${command} ended with ${code ?? signal}:\n${child.out}${child.err}`);
  return child.out;
}

/** Kills (by id) and awaits the end. */
export async function kill(child, signal = 'SIGKILL') {
  child.kill(signal);
  return within(child.exited, () => `${child.spawnfile} does not end on ${signal}:\n${child.err}`);
}

/** The promise's value, or an error that says what was awaited in vain. */
export async function within(promise, what, guard = GUARD) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(typeof what === 'function' ? what() : what)), guard);
  });
  try { return await Promise.race([promise, late]); } finally { clearTimeout(timer); }
}

/** Asks until the answer is yes: only for what cannot be awaited (another process's end, a listener that comes up). */
export async function until(question, what, guard = GUARD) {
  const end = Date.now() + guard;
  for (;;) {
    const answer = await question();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(typeof what === 'function' ? what() : what);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** A port that is free and stays so: below the range from which the system takes ports for outgoing connections. */
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

/** A wire to a port that can be cut and mended: { port, cut(), mend() }. While it is cut, connections are refused. */
export async function wire(t, to) {
  const sockets = new Set();
  const server = net.createServer((near) => {
    const far = net.connect(to, '127.0.0.1');
    for (const [one, other] of [[near, far], [far, near]]) {
      sockets.add(one);
      one.on('error', () => other.destroy()).on('close', () => { sockets.delete(one); other.destroy(); });
      one.pipe(other);
    }
  });
  const open = (port) => new Promise((resolve, reject) => { server.once('error', reject).listen(port, '127.0.0.1', resolve); });
  const cut = () => { server.close(); for (const socket of sockets) socket.destroy(); };
  const port = await freePort();
  await open(port);
  t.after(cut);
  return { port, cut, mend: () => open(port) };
}

/** A new empty folder, removed with the test. */
export function folder(t, name = 'test') {
  const made = mkdtempSync(path.join(os.tmpdir(), `sse-clients-${name}-`));
  t.after(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

/** The living children of a process, by id. */
export function children(parent) {
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => status(pid)?.parent === parent);
}

/** Whether a process runs: one that has ended and only waits to be reaped does not. */
export function runs(pid) {
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

/** The paths in the file system that a process holds: its working directory and its open files. */
export function paths(pid) {
  const held = [readlinkSync(`/proc/${pid}/cwd`)];
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try { held.push(readlinkSync(`/proc/${pid}/fd/${fd}`)); } catch { /* closed meanwhile */ }
  }
  return held.filter((held) => /^\/(?!proc\/|dev\/(?!shm\/))/.test(held));
}
