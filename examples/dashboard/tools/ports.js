// Free ports.
import net from 'node:net';

function listen(port) {
  const server = net.createServer();
  return new Promise((resolve, reject) => {
    server.once('error', reject).listen(port, '127.0.0.1', () => resolve(server));
  });
}

export async function isFree(port) {
  try {
    (await listen(port)).close();
    return true;
  } catch { return false; }
}

export async function freePort() {
  const server = await listen(0);
  const { port } = server.address();
  await new Promise((resolve) => { server.close(resolve); });
  return port;
}
