// The backend of the page: issues tickets, publishes, and returns the initial state.
// To run it alone, set PORT, GATEWAY_URL, REDIS_URL and TICKET_SECRET: `node backend/server.js`.
import http from 'node:http';
import { fileURLToPath } from 'node:url';
import { Publisher } from './publisher.js';
import { TOPIC, USERS } from './shop.js';
import { files } from './files.js';
import { mint } from './tickets.js';

const MAX_COUNT = 200;

/**
 * Serves until `close` is called. Resolves to { url, close }. `page` handles all requests outside
 * of the API. Port 0 selects a free port.
 */
export async function serve(options) {
  const { host = '127.0.0.1', port, gateway, redis, secret, kid, tick = 1000, page } = options;
  const publisher = new Publisher(redis);
  const known = new Set(USERS.map(({ id }) => id));
  const servePage = page ?? files(`'self' ${gateway}`);

  // A real backend takes the user from the session. This example has no login and trusts the
  // request.
  const routes = {
    'GET /api/config': () => ({ gateway, topic: TOPIC, users: USERS }),
    'GET /api/desk': ({ user }) => known.has(user) && publisher.desk(user),
    'POST /api/ticket': ({ user }) =>
      known.has(user) && { ticket: mint({ secret, kid }, user, [TOPIC]) },
    'POST /api/publish': async ({ to, type, count = 1 }) => {
      if (!Number.isInteger(count) || count < 1 || count > MAX_COUNT) return null;
      const ids = await publisher.publish(to, type, count);
      return ids && { ids };
    },
  };

  const server = http.createServer(async (request, response) => {
    // Not parsed as a URL: a request target can be invalid (`//`).
    const [pathname, query] = request.url.split('?');
    const route = routes[`${request.method} ${pathname}`];
    if (!route) return servePage(request, response);
    try {
      const params = request.method === 'POST'
        ? await readJson(request) : Object.fromEntries(new URLSearchParams(query));
      const result = params && await route(params);
      return result
        ? send(response, 200, result)
        : send(response, 400, { message: 'Unknown user or type, or invalid count' });
    } catch (error) {
      console.error(`${pathname}: ${error.message}`);
      return send(response, 503, { message: 'Redis is not available. Try again.' });
    }
  });

  // Publishes a point before the first page load, so that there is always an id to start from.
  await publisher.tick();
  const timer = setInterval(() => {
    publisher.tick().catch((error) => console.error(`visitors: ${error.message}`));
  }, tick);
  await new Promise((resolve, reject) => {
    server.once('error', reject).listen(port, host, resolve);
  });
  return {
    url: `http://${host}:${server.address().port}/`,
    close: () => {
      clearInterval(timer);
      publisher.close();
      server.close();
      server.closeAllConnections();
    },
  };
}

/**
 * Reads the JSON object of a request; null if there is none. Requires the JSON content type, so
 * that forms of other sites cannot post here.
 */
async function readJson(request) {
  if (!request.headers['content-type']?.startsWith('application/json')) return null;
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) {
    text += chunk;
    if (text.length > 10_000) return null;
  }
  try {
    const value = JSON.parse(text);
    return typeof value === 'object' ? value : null;
  } catch { return null; }
}

function send(response, status, value) {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
  response.end(JSON.stringify(value));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { PORT = '8088', GATEWAY_URL, REDIS_URL, TICKET_SECRET, TICK } = process.env;
  if (!GATEWAY_URL || !REDIS_URL || !TICKET_SECRET) {
    console.error('Set GATEWAY_URL, REDIS_URL and TICKET_SECRET, '
      + 'or run `npm start`, which starts a gateway and a Redis.');
    process.exit(78);
  }
  const { url } = await serve({
    port: Number(PORT),
    gateway: GATEWAY_URL,
    redis: REDIS_URL,
    secret: TICKET_SECRET,
    tick: Number(TICK ?? 1000),
  });
  console.log(`Dashboard: ${url}`);
}
