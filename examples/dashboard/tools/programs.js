// Where the gateway is, or what to do if it is not there. It looks for redis-server itself.
import { accessSync, constants } from 'node:fs';
import path from 'node:path';

const ROOT = path.resolve(import.meta.dirname, '../../..');

export function gatewayProgram() {
  const given = process.env.SSE_GATEWAY_BIN;
  const built = ['release', 'debug'].map((kind) => path.join(process.env.CARGO_TARGET_DIR ?? path.join(ROOT, 'target'), kind, 'sse-gateway'));
  const found = given ? [given].find(runs) : [...built, ...onPath('sse-gateway')].find(runs);
  if (found) return path.resolve(found);
  throw new Error(given
    ? `SSE_GATEWAY_BIN is ${given}, and that cannot be run.`
    : 'There is no sse-gateway. Build it (`make build`, or `cargo build` in the repository), or name one in SSE_GATEWAY_BIN.');
}

const onPath = (name) => (process.env.PATH ?? '').split(path.delimiter).filter(Boolean).map((folder) => path.join(folder, name));

function runs(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch { return false; }
}
