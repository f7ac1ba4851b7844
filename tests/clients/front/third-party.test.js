// The clients of docs/guides/third-party-clients.md resume after a crash of the gateway, with new
// tickets, and after the end of their stream.
import assert from 'node:assert/strict';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { folder, kill, printed, start, until } from '../lib/processes.js';
import { BINARY, PYTHON, SECRET } from '../lib/servers.js';
import { blocks, bundle, setUp } from './lib.js';

const PAGE = '../../docs/guides/third-party-clients.md';
const block = (language, text) => {
  const found = blocks(PAGE, language).filter((code) => code.includes(text));
  assert.equal(found.length, 1, text);
  return found[0];
};
const FETCH = block('js', 'function fetchWithTicket');

/** Starts a program. `orders()` resolves to the numbers of the orders that it has printed. */
function program(t, command, args, env = {}) {
  const child = start(command, args, { env: { PATH: process.env.PATH, ...env } });
  t.after(() => kill(child));
  const orders = () => [...child.out.matchAll(/^order.*?(\d+)\D*$/gm)].map(([, n]) => Number(n));
  return {
    orders: async () => orders(),
    got: (n) => printed(child, () => orders().includes(n), `order ${n}`),
  };
}

/** Runs an example in a browser. */
async function inBrowser({ open }, code) {
  const main = `${code}
    window.orders = [];
    function showOrder({ orderId }) { window.orders.push(orderId); }
    function reload() { window.orders.push('gap'); }`;
  const tab = await open({ '/app.js': await bundle({ main }) });
  return {
    tab,
    orders: () => tab.evaluate(() => window.orders),
    got: (n) => tab.waitForFunction((n) => window.orders?.includes(n), n),
  };
}

/** Publishes while the client is connected, while there is no gateway, and after a clean end. */
async function outlives({ gateway, start, publish }, clients) {
  const publishAndAwait = async (n) => {
    await publish('order-completed', { orderId: n });
    for (const client of clients) await client.got(n);
  };
  const connected = (gateway) => until(
    async () => (await gateway.metric('sse_connections')) === clients.length,
    'not every client is connected',
  );
  await connected(gateway);
  // A stream is counted before it has a position, and gets no event that is published in between:
  // the first order is published until every client has it.
  const hasFirst = async (client) => (await client.orders()).includes(1);
  await until(async () => {
    await publish('order-completed', { orderId: 1 });
    return (await Promise.all(clients.map(hasFirst))).every(Boolean);
  }, 'not every client gets the first order');
  await gateway.crash();
  await publish('order-completed', { orderId: 2 });
  const second = await start();
  await publishAndAwait(3);
  await connected(second);
  await second.stop();
  await publish('order-completed', { orderId: 4 });
  await start();
  await publishAndAwait(5);
  for (const client of clients) {
    const orders = await client.orders();
    const isRepeated = (n, place) => n === 1 && place < orders.lastIndexOf(1);
    const once = orders.filter((n, place) => !isRepeated(n, place));
    assert.deepEqual(once, [1, 2, 3, 4, 5]);
  }
}

test('clients with new tickets resume without loss', { timeout: 120_000 }, async (t) => {
  // Each ticket is for one connection.
  const setup = await setUp(t, { 'tickets.reconnect_grace': '0s' });
  const browser = await inBrowser(setup, FETCH + block('js', "'@microsoft/fetch-event-source'"));
  const site = new URL(browser.tab.url()).origin;
  const events = setup.gateway.url;
  const local = (code) => code
    .replace('https://events.example.com', events)
    .replace(/(https:\/\/example\.com)?\/api\/sse-ticket/, `${site}/api/sse-ticket`);

  const directory = folder(t, 'third-party');
  symlinkSync(path.resolve(import.meta.dirname, '../node_modules'), `${directory}/node_modules`);
  const inNode = (name) => {
    const end = `
      function showOrder({ orderId }) { console.log('order', orderId); }
      function reload() { console.log('order gap 0'); }`;
    const file = path.join(directory, `${name}.mjs`);
    writeFileSync(file, local(FETCH + block('js', `from '${name}'`)) + end);
    return program(t, process.execPath, [file]);
  };
  const bin = path.join(directory, 'bin');
  mkdirSync(bin);
  symlinkSync(BINARY, path.join(bin, 'sse-gateway'));
  const env = { PATH: `${bin}:${process.env.PATH}`, SSE_GATEWAY__TICKETS__SECRET: SECRET };
  await outlives(setup, [
    browser,
    inNode('eventsource'),
    inNode('eventsource-client'),
    program(t, PYTHON, ['-c', local(block('python', 'connect_sse'))]),
    program(t, 'bash', ['-c', local(block('bash', 'curl'))], env),
  ]);
});

test('reconnecting-eventsource resumes without loss', async (t) => {
  const setup = await setUp(t);
  const code = block('js', "'reconnecting-eventsource'");
  await outlives(setup, [await inBrowser(setup, code)]);
});

test('fetch-event-source without onclose does not reconnect after an end', async (t) => {
  const setup = await setUp(t);
  const code = block('js', "'@microsoft/fetch-event-source'").replace(/^ {2}onclose.*\n/m, '')
    .replace('fetchEventSource(', 'window.ended = fetchEventSource(');
  const { tab } = await inBrowser(setup, FETCH + code);
  // Not by the number of connections, which counts a stream before its response begins.
  await until(async () => (await setup.gateway.metric('sse_bytes_sent_total')) > 0, 'a stream');
  await setup.gateway.stop();
  assert.equal(await tab.evaluate(() => window.ended), undefined);
});
