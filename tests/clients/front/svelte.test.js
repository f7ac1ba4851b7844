// The Svelte store in a browser: the component of the README, cleanup, and resuming.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compile as compileSvelte } from 'svelte/compiler';
import { start } from '../lib/processes.js';
import { blocks, bundle, CLIENT, setUp, shows } from './lib.js';

const compile = (text, filename) => compileSvelte(text, { filename, generate: 'client' }).js.code;

const [store] = blocks('svelte/README.md', 'js');
const [app] = blocks('svelte/README.md', 'svelte');
const main = `
  import { mount, unmount } from 'svelte';
  import App from './App.svelte';
  let app;
  window.show = () => { app = mount(App, { target: document.querySelector('#app') }); };
  window.hide = () => unmount(app);
  window.show();
`;
const files = { main, './App.svelte': app, './sse.js': store };
const script = () => bundle(files, [/\.svelte$/, compile]);

test('component of the README shows state, values and events', async (t) => {
  const { gateway, start, open, publish, connectionsAre } = await setUp(t);
  await publish('price', { amount: 7 }, 'KEEP', 'btc');
  const tab = await open({ '/app.js': await script() });
  await shows(tab, '[role=status]', 'open');
  await shows(tab, 'output', '7');
  await publish('order-completed', { orderId: 1 });
  await shows(tab, 'li', 'Order 1');
  await connectionsAre(1);

  await gateway.crash();
  await shows(tab, '[role=status]', 'reconnecting');
  await publish('order-completed', { orderId: 2 });
  await start();
  await shows(tab, 'li:nth-child(2)', 'Order 2');
  await shows(tab, '[role=status]', 'open');
  assert.deepEqual(tab.consoleErrors.filter((text) => !text.includes('net::ERR_')), []);
});

test('stream closes with its last user and resumes with the next', async (t) => {
  const { open, publish, connectionsAre } = await setUp(t);
  const tab = await open({ '/app.js': await script() });
  await shows(tab, '[role=status]', 'open');
  await publish('order-completed', { orderId: 1 });
  await shows(tab, 'li', 'Order 1');
  await connectionsAre(1);
  await tab.evaluate(() => window.hide());
  await connectionsAre(0);
  await publish('order-completed', { orderId: 2 });
  await tab.evaluate(() => window.show());
  await shows(tab, 'li', 'Order 2');
  await connectionsAre(1);
  assert.deepEqual(tab.consoleErrors, []);
});

test('server-side rendering opens no connection', async () => {
  const code = `
    import { get } from 'svelte/store';
    import { createSse } from '${CLIENT}/svelte/index.js';
    const ticket = () => { console.log('a ticket was requested'); return 'x'; };
    const sse = createSse({ url: '/events', ticket });
    console.log(get(sse), get(sse.latest('price', 1)));
  `;
  const child = start(process.execPath, ['--input-type=module', '--eval', code], { cwd: CLIENT });
  assert.equal((await child.exited).code, 0, child.err);
  assert.equal(child.out, 'connecting 1\n');
  assert.equal(child.err, '');
});
