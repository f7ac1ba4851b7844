// The example for React Native, in Node without what React Native lacks.
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { folder, kill, printed, start as startProcess, until } from '../lib/processes.js';
import { ticket } from '../lib/servers.js';
import { blocks, CLIENT, setUp } from './lib.js';

const [example] = blocks('../../docs/guides/other-front-ends.md', 'js');

test('example for React Native polls and resumes', async (t) => {
  const { gateway, start, publish } = await setUp(t);
  const tickets = Array.from({ length: 50 }, () => ticket('42'));
  const prelude = `
    for (const name of ['EventSource', 'navigator', 'BroadcastChannel', 'MessageChannel'])
      delete globalThis[name];
    delete AbortSignal.timeout;
    delete AbortSignal.any;
    const network = fetch;
    const tickets = ${JSON.stringify(tickets)};
    globalThis.fetch = async (url, init) => {
      if (url.endsWith('/api/sse-ticket')) {
        const ok = !globalThis.signedOut;
        return { ok, status: ok ? 200 : 401, json: async () => ({ ticket: tickets.pop() }) };
      }
      const response = await network(url, init);
      const { ok, status, headers } = response;
      return { ok, status, headers, json: () => response.json() }; // without a stream
    };
    globalThis.showOrder = ({ orderId }) => console.log('order', orderId);
  `;
  const code = example
    .replace("'@sse-gateway/client'", `'${CLIENT}/src/index.js'`)
    .replace('https://events.example.com', gateway.url);
  const end = `
    stream.onState((state) => console.log('state', state));
    process.on('SIGUSR2', () => { globalThis.signedOut = true; stream.reconnect(); });
  `;
  const file = path.join(folder(t, 'native'), 'app.mjs');
  writeFileSync(file, prelude + code + end);
  const app = startProcess(process.execPath, [file]);
  t.after(() => kill(app));
  await printed(app, ({ out }) => out.includes('state polling'), 'that it polls');
  // The first poll only returns the position.
  await until(async () => {
    await publish('order-completed', { orderId: 1 });
    return app.out.includes('order 1\n');
  }, 'no order');
  await gateway.crash();
  await publish('order-completed', { orderId: 2 });
  await start();
  await printed(app, ({ out }) => out.includes('order 2\n'), 'the second order');
  app.kill('SIGUSR2');
  await printed(app, ({ out }) => out.includes('state signed-out'), 'that it is signed out');
});
