// Serves the built page. All files are read at startup, so nothing outside of the folder is
// reachable.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';

const DIST = path.resolve(import.meta.dirname, '../dist');
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.woff2': 'font/woff2',
  '.svg': 'image/svg+xml',
};

/** Returns a request handler. The page may only connect to the origins in `connect`. */
export function files(connect) {
  if (!existsSync(path.join(DIST, 'index.html'))) {
    throw new Error(
      `The page is not built (${DIST}/index.html is missing). Run \`npm run build\`.`,
    );
  }
  const policy = [
    "default-src 'self'",
    `connect-src ${connect}`,
    "img-src 'self' data:",
    "style-src 'self' 'unsafe-inline'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
  ].join('; ');
  const found = new Map();
  for (const entry of readdirSync(DIST, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = path.join(entry.parentPath, entry.name);
    const name = `/${path.relative(DIST, file).replaceAll(path.sep, '/')}`;
    // Built assets have a digest in their name.
    const cache = name.startsWith('/assets/') ? 'public, max-age=31536000, immutable' : 'no-cache';
    found.set(name, {
      body: readFileSync(file),
      type: TYPES[path.extname(name)] ?? 'application/octet-stream',
      cache,
    });
  }
  found.set('/', found.get('/index.html'));

  return (request, response) => {
    const file = request.method === 'GET' && found.get(request.url.split('?')[0]);
    if (!file) {
      response.writeHead(404, { 'content-type': 'text/plain' });
      return response.end('Not found\n');
    }
    response.writeHead(200, {
      'content-type': file.type,
      'cache-control': file.cache,
      'content-security-policy': policy,
      'referrer-policy': 'no-referrer',
      'x-content-type-options': 'nosniff',
    });
    return response.end(file.body);
  };
}
