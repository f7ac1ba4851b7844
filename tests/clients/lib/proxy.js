// A proxy in front of gateways that can be made as bad as proxies are.
import http from 'node:http';
import { EventEmitter } from 'node:events';
import { within } from './processes.js';

/**
 * Hands every request on to the first of `targets` (ports) that takes it, beginning with another one each time. `mode` may be changed at any time:
 * - `through`: as it should be
 * - `buffers`: keeps an event stream back until it has ended; everything else goes through
 * - `swallows`: takes everything and lets nothing back, for what is open as well
 * - `refuses`: 502 for event streams; everything else goes through
 * - `holds`: keeps new requests back until `release()`; `holds-streams`, `holds-polls`: only those
 * - `delays-polls`: polls go through, and their answers are kept back until `release()`; it emits `delayed` for each
 * It emits `request` with `stream`, `poll` or `other` and the request's URL.
 */
export class Proxy extends EventEmitter {
  static async start(t, ...targets) {
    const proxy = new Proxy();
    proxy.targets = targets;
    proxy.mode = 'through';
    proxy.turn = 0;
    proxy.held = [];
    proxy.sockets = new Set();
    proxy.server = http.createServer((request, response) => proxy.take(request, response));
    proxy.server.on('connection', (socket) => {
      proxy.sockets.add(socket);
      socket.on('close', () => proxy.sockets.delete(socket)).on('error', () => { /* cut */ });
    });
    await new Promise((resolve) => { proxy.server.listen(0, '127.0.0.1', resolve); });
    t.after(() => { proxy.server.close(); proxy.cut(); });
    proxy.url = `http://127.0.0.1:${proxy.server.address().port}`;
    return proxy;
  }

  /** Ends all that is open. */
  cut() { for (const socket of this.sockets) socket.destroy(); }

  /** What was held goes through, and so does all that follows, unless there is another mode for it. */
  release(mode = 'through') {
    this.mode = mode;
    for (const go of this.held.splice(0)) go();
  }

  /** Waits for the next request of the kind; its URL. */
  asked(wanted) {
    return within(new Promise((resolve) => {
      const hear = (kind, url) => {
        if (kind !== wanted) return;
        this.off('request', hear);
        resolve(url);
      };
      this.on('request', hear);
    }), `nobody asks for a ${wanted}`);
  }

  take(request, response) {
    const { pathname } = new URL(request.url, this.url);
    const kind = { '/events': 'stream', '/events/poll': 'poll' }[pathname] ?? 'other';
    this.emit('request', kind, request.url);
    if (this.mode === 'holds' || this.mode === `holds-${kind}s`) {
      this.held.push(() => this.take(request, response));
      return;
    }
    if (this.mode === 'swallows') return;
    if (this.mode === 'refuses' && kind === 'stream') {
      response.writeHead(502).end('no');
      return;
    }
    const first = this.turn++;
    const hand = (tries) => {
      if (tries === this.targets.length) {
        response.destroy();
        return;
      }
      const port = this.targets[(first + tries) % this.targets.length];
      const onward = http.request({ port, host: '127.0.0.1', path: request.url, method: request.method, headers: request.headers, agent: false });
      response.on('close', () => onward.destroy());
      onward.on('error', () => { if (!response.headersSent) hand(tries + 1); else response.destroy(); });
      onward.on('response', (answer) => {
        if (this.mode !== `delays-${kind}s`) {
          this.back(answer, response);
          return;
        }
        this.held.push(() => this.back(answer, response));
        this.emit('delayed');
      });
      onward.end();
    };
    hand(0);
  }

  back(answer, response) {
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
