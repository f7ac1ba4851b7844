// The backend of the page: says who may listen (tickets), publishes, and gives the state to start from.
// Alone: PORT, GATEWAY_URL, REDIS_URL, TICKET_SECRET and `node backend/server.js`.
import http from 'node:http';
import { fileURLToPath } from 'node:url';
import { Publisher } from './publisher.js';
import { TOPIC, USERS } from './shop.js';
import { files } from './files.js';
import { mint } from './tickets.js';

const MOST = 200;

/**
 * Serves until `close` is called; resolves to { url, close }. `page` takes the requests that are not for the API.
 * Port 0 is any free one.
 */
export async function serve({ host = '127.0.0.1', port, gateway, redis, secret, kid, tick = 1000, page }) {
  const publisher = new Publisher(redis);
  const known = new Set(USERS.map(({ id }) => id));
  const others = page ?? files(`'self' ${gateway}`);

  // Who asks is whom its login says. This example has no login: it takes the name's word for it.
  const routes = {
    'GET /api/config': () => ({ gateway, topic: TOPIC, users: USERS }),
    'GET /api/desk': ({ user }) => known.has(user) && publisher.desk(user),
    'POST /api/ticket': ({ user }) => known.has(user) && { ticket: mint({ secret, kid }, user, [TOPIC]) },
    'POST /api/publish': async ({ to, type, count = 1 }) => {
      const ids = Number.isInteger(count) && count > 0 && count <= MOST && await publisher.publish(to, type, count);
      return ids && { ids };
    },
  };

  const server = http.createServer(async (request, response) => {
    // Not as a URL: what anyone asks for need not be one (`//`).
    const [pathname, query] = request.url.split('?');
    const route = routes[`${request.method} ${pathname}`];
    if (!route) return others(request, response);
    try {
      const question = request.method === 'POST' ? await body(request) : Object.fromEntries(new URLSearchParams(query));
      const answer = question && await route(question);
      return answer ? send(response, 200, answer) : send(response, 400, { message: 'No such user, kind or count' });
    } catch (error) {
      console.error(`${pathname}: ${error.message}`);
      return send(response, 503, { message: 'Redis does not answer. Try again.' });
    }
  });

  // The first point before the first page: from then on there is always an id to start from.
  await publisher.tick();
  const ticking = setInterval(() => publisher.tick().catch((error) => console.error(`visitors: ${error.message}`)), tick);
  await new Promise((resolve, reject) => { server.once('error', reject).listen(port, host, resolve); });
  return {
    url: `http://${host}:${server.address().port}/`,
    close: () => {
      clearInterval(ticking);
      publisher.close();
      server.close();
      server.closeAllConnections();
    },
  };
}

/** The JSON object of a request, or null. Only as JSON: so no other site's form can post here. */
async function body(request) {
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
    console.error('Set GATEWAY_URL, REDIS_URL and TICKET_SECRET; or run `npm start`, which brings all of it.');
    process.exit(78);
  }
  const { url } = await serve({ port: Number(PORT), gateway: GATEWAY_URL, redis: REDIS_URL, secret: TICKET_SECRET, tick: Number(TICK ?? 1000) });
  console.log(`The dashboard: ${url}`);
}
