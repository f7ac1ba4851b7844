// A proxy in front of gateways that simulates the faults of real proxies.
import http from 'node:http';
import { EventEmitter } from 'node:events';
import { withTimeout } from './processes.js';

/**
 * Forwards each request to the first of `targets` (ports) that accepts it, starting with the next
 * one each time. `mode` can be changed at any time:
 * - `through`: forwards everything
 * - `buffers`: buffers event streams until they end; forwards everything else
 * - `swallows`: accepts requests and returns nothing, also on open streams
 * - `refuses`: returns 502 for event streams; forwards everything else
 * - `holds`: holds new requests until `release()`; `holds-streams`, `holds-polls`: only those
 * - `delays-polls`: forwards polls and holds their responses until `release()`; emits `delayed`
 *
 * Emits `request` with `stream`, `poll` or `other` and the URL of the request.
 */
export class Proxy extends EventEmitter {
  static async start(t, ...targets) {
    const proxy = new Proxy();
    proxy.targets = targets;
    proxy.mode = 'through';
    proxy.turn = 0;
    proxy.held = [];
    proxy.sockets = new Set();
    proxy.server = http.createServer((request, response) => proxy.handle(request, response));
    proxy.server.on('connection', (socket) => {
      proxy.sockets.add(socket);
      socket.on('close', () => proxy.sockets.delete(socket)).on('error', () => { /* closed */ });
    });
    await new Promise((resolve) => { proxy.server.listen(0, '127.0.0.1', resolve); });
    t.after(() => { proxy.server.close(); proxy.cut(); });
    proxy.url = `http://127.0.0.1:${proxy.server.address().port}`;
    return proxy;
  }

  /** Closes all connections. */
  cut() { for (const socket of this.sockets) socket.destroy(); }

  /** Forwards what was held, and sets the mode. */
  release(mode = 'through') {
    this.mode = mode;
    for (const go of this.held.splice(0)) go();
  }

  /** Waits for the next request of a kind and resolves to its URL. */
  nextRequest(expected) {
    return withTimeout(new Promise((resolve) => {
      const onRequest = (kind, url) => {
        if (kind !== expected) return;
        this.off('request', onRequest);
        resolve(url);
      };
      this.on('request', onRequest);
    }), `no ${expected} was requested`);
  }

  handle(request, response) {
    const { pathname } = new URL(request.url, this.url);
    const kind = { '/events': 'stream', '/events/poll': 'poll' }[pathname] ?? 'other';
    this.emit('request', kind, request.url);
    if (this.mode === 'holds' || this.mode === `holds-${kind}s`) {
      this.held.push(() => this.handle(request, response));
      return;
    }
    if (this.mode === 'swallows') return;
    if (this.mode === 'refuses' && kind === 'stream') {
      response.writeHead(502).end('no');
      return;
    }
    const first = this.turn++;
    const forward = (tries) => {
      if (tries === this.targets.length) {
        response.destroy();
        return;
      }
      const port = this.targets[(first + tries) % this.targets.length];
      const upstream = http.request({
        port,
        host: '127.0.0.1',
        path: request.url,
        method: request.method,
        headers: request.headers,
        agent: false,
      });
      response.on('close', () => upstream.destroy());
      upstream.on('error', () => {
        if (!response.headersSent) forward(tries + 1);
        else response.destroy();
      });
      upstream.on('response', (answer) => {
        if (this.mode !== `delays-${kind}s`) {
          this.respond(answer, response);
          return;
        }
        this.held.push(() => this.respond(answer, response));
        this.emit('delayed');
      });
      upstream.end();
    };
    forward(0);
  }

  respond(answer, response) {
    const stream = answer.headers['content-type'] === 'text/event-stream';
    const held = [];
    const send = (chunk) => {
      if (this.mode === 'swallows') return;
      if (this.mode === 'buffers' && stream) {
        held.push(chunk);
        return;
      }
      if (!response.headersSent) response.writeHead(answer.statusCode, answer.headers);
      response.write(Buffer.concat([...held.splice(0), chunk]));
    };
    answer.on('data', send);
    answer.on('error', () => response.destroy());
    answer.on('end', () => {
      if (this.mode === 'swallows') return;
      if (!response.headersSent) response.writeHead(answer.statusCode, answer.headers);
      response.end(Buffer.concat(held));
    });
    answer.on('close', () => { if (!answer.complete) response.destroy(); });
  }
}
