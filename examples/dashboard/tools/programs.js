// Locates the gateway binary. The gateway itself locates redis-server.
import { accessSync, constants } from 'node:fs';
import path from 'node:path';

const ROOT = path.resolve(import.meta.dirname, '../../..');

export function gatewayProgram() {
  const configured = process.env.SSE_GATEWAY_BIN;
  const target = process.env.CARGO_TARGET_DIR ?? path.join(ROOT, 'target');
  const built = ['release', 'debug'].map((profile) => path.join(target, profile, 'sse-gateway'));
  const candidates = configured ? [configured] : [...built, ...onPath('sse-gateway')];
  const found = candidates.find(isExecutable);
  if (found) return path.resolve(found);
  throw new Error(configured
    ? `SSE_GATEWAY_BIN: ${configured} is not an executable file.`
    : 'sse-gateway not found. Build it (`make build`, or `cargo build` in the repository), '
      + 'or set SSE_GATEWAY_BIN.');
}

const onPath = (name) => (process.env.PATH ?? '')
  .split(path.delimiter)
  .filter(Boolean)
  .map((folder) => path.join(folder, name));

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch { return false; }
}
