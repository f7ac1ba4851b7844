// Starts a private Postgres, which is removed with all its data when this process ends.
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  accessSync, chownSync, constants, mkdtempSync, readdirSync, rmSync, writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Child } from '../../dashboard/tools/child.js';
import { freePort } from '../../dashboard/tools/ports.js';

/** Debian has the programs of each version in a folder of its own, outside of PATH. */
const DEBIAN = '/usr/lib/postgresql';

// SIGTERM would wait for the clients, SIGINT does not.
const SERVE = `
"$@" & server=$!
trap 'kill -INT "$server"' TERM
wait "$server"; wait "$server"
rm -rf "$FOLDER"`;

/** Resolves to { url, child }. Rejects with an error that says what to do. */
export async function startPostgres() {
  const programs = findPrograms();
  const asUser = unprivileged();
  const folder = mkdtempSync(path.join(os.tmpdir(), 'sse-next-postgres-'));
  if (asUser.uid !== undefined) chownSync(folder, asUser.uid, asUser.uid);
  const data = path.join(folder, 'data');
  const password = randomBytes(16).toString('hex');
  const passwordFile = path.join(folder, 'password');
  writeFileSync(passwordFile, password);
  const [program, ...args] = [...asUser.command, path.join(programs, 'initdb'), '-D', data,
    '-U', 'app', '-E', 'UTF8', '--locale=C', '-A', 'scram-sha-256', '--pwfile', passwordFile];
  try {
    execFileSync(program, [...args, '--no-sync'], { cwd: '/', stdio: 'pipe' });
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    throw new Error(`Postgres could not be set up (initdb): ${error.stderr ?? error.message}`);
  }
  const port = await freePort();
  const settings = {
    listen_addresses: '127.0.0.1',
    port,
    unix_socket_directories: '',
    fsync: 'off',
  };
  const child = new Child('sh', ['-c', SERVE, 'sh', ...asUser.command,
    path.join(programs, 'postgres'), '-D', data,
    ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
  ], { ...process.env, FOLDER: folder });
  await child.printed((text) => text.includes('ready to accept connections'));
  return { url: `postgres://app:${password}@127.0.0.1:${port}/postgres`, child };
}

/** POSTGRES_BIN names the folder with the programs. Default: Debian's newest version, or PATH. */
function findPrograms() {
  const versions = names(DEBIAN).sort((a, b) => Number(b) - Number(a));
  const usual = [
    ...versions.map((version) => path.join(DEBIAN, version, 'bin')),
    ...(process.env.PATH ?? '').split(path.delimiter).filter(Boolean),
  ];
  const { POSTGRES_BIN } = process.env;
  const folders = POSTGRES_BIN ? [POSTGRES_BIN] : usual;
  const found = folders.find((folder) => isExecutable(path.join(folder, 'initdb')));
  if (found) return found;
  throw new Error(`Postgres was not found: no initdb in ${POSTGRES_BIN ?? `${DEBIAN} or PATH`}. `
    + 'Install it (apt-get install postgresql), or set POSTGRES_BIN to the folder of initdb.');
}

/** Postgres refuses to run as root: then it runs as Debian's user `postgres`. */
function unprivileged() {
  if (process.getuid() !== 0) return { command: [] };
  let uid;
  try {
    uid = Number(execFileSync('id', ['-u', 'postgres'], { stdio: 'pipe' }));
  } catch {
    throw new Error('Postgres does not run as root, and there is no user "postgres" to run it as. '
      + 'Run this as another user, or create that user: useradd --system postgres');
  }
  return { uid, command: ['setpriv', '--reuid=postgres', '--regid=postgres', '--clear-groups'] };
}

function names(folder) {
  try { return readdirSync(folder); } catch { return []; }
}

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch { return false; }
}
