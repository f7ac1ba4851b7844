// The JavaScript client with one script tag, as in its README.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { run } from '../lib/processes.js';
import { blocks, CLIENT, setUp, shows } from './lib.js';

const FILE = 'dist/sse-gateway-client.min.js';
const MODULE = 'dist/sse-gateway-client.esm.min.js';
const [page] = blocks('README.md', 'html');
let files;
before(async () => {
  await run('npm', ['run', '--silent', 'script'], { cwd: CLIENT });
  const script = readFileSync(path.join(CLIENT, FILE), 'utf8');
  const [, name] = /<script src="(.*)"><\/script>/.exec(page);
  assert.equal(path.basename(name), path.basename(FILE));
  files = { '/': `<!doctype html><title>Page</title><link rel="icon" href="data:,">${page}` };
  files[`/${name}`] = script;
});

test('page of the README shows state and events, and resumes', async (t) => {
  const { gateway, start, open, publish } = await setUp(t);
  const tab = await open(files);
  await shows(tab, '#state', 'open');
  await publish('order-completed', { orderId: 1 });
  await shows(tab, '#orders', 'Order 1');
  await gateway.crash();
  await shows(tab, '#state', 'reconnecting');
  await publish('order-completed', { orderId: 2 });
  await start();
  await shows(tab, '#orders', 'Order 1Order 2');
  assert.deepEqual(tab.consoleErrors.filter((text) => !text.includes('net::ERR_')), []);
});

test('the page works with the ES module, also with shared tabs', async (t) => {
  const { open, publish, connectionsAre } = await setUp(t);
  const name = path.basename(MODULE);
  const asModule = files['/']
    .replace(/<script src=.*\n/, '')
    .replace('<script>\n', `<script type="module">import * as sseGateway from './${name}';\n`)
    .replace('connect({', "connect({ share: 'user-42',");
  assert.match(asModule, /<script type="module">/);
  const module = readFileSync(path.join(CLIENT, MODULE), 'utf8');
  const first = await open({ '/': asModule, [`/${name}`]: module });
  const second = await first.context().newPage();
  await second.goto(first.url());
  for (const tab of [first, second]) await shows(tab, '#state', 'open');
  await publish('order-completed', { orderId: 1 });
  for (const tab of [first, second]) await shows(tab, '#orders', 'Order 1');
  await connectionsAre(1);
  assert.deepEqual(first.consoleErrors, []);
});

test('tabs share one connection', async (t) => {
  const { open, publish, connectionsAre } = await setUp(t);
  const shared = page.replace('connect({', "connect({ share: 'user-42',");
  assert.notEqual(shared, page);
  const first = await open({ ...files, '/': files['/'].replace(page, shared) });
  const second = await first.context().newPage();
  await second.goto(first.url());
  for (const tab of [first, second]) await shows(tab, '#state', 'open');
  await publish('order-completed', { orderId: 1 });
  for (const tab of [first, second]) await shows(tab, '#orders', 'Order 1');
  await connectionsAre(1);
});
