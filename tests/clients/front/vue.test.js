// The Vue composables in a browser: the components of the README, handlers, and cleanup.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compileScript, parse } from 'vue/compiler-sfc';
import { start } from '../lib/processes.js';
import { blocks, bundle, CLIENT, setUp, shows } from './lib.js';

/** Compiles a single-file component. */
function compile(text, name) {
  const { descriptor, errors } = parse(text, { filename: name });
  assert.deepEqual(errors, []);
  return compileScript(descriptor, { id: name, inlineTemplate: true }).content;
}

const [app, list] = blocks('vue/README.md', 'vue');

test('components of the README show state, values and events', async (t) => {
  const { gateway, start, open, publish, connectionsAre } = await setUp(t);
  const main = `
    import { createApp } from 'vue';
    import App from './App.vue';
    window.app = createApp(App);
    window.app.mount('#app');
  `;
  const files = { main, './App.vue': app, './OrderList.vue': list };
  await publish('price', { amount: 7 }, 'KEEP', 'btc');
  const tab = await open({ '/app.js': await bundle(files, [/\.vue$/, compile]) });
  await shows(tab, '[role=status]', 'open');
  await shows(tab, 'output', '7');
  await publish('order-completed', { orderId: 1 });
  await shows(tab, 'ul', 'Order 1');
  await connectionsAre(1);

  await gateway.crash();
  await shows(tab, '[role=status]', 'reconnecting');
  await publish('order-completed', { orderId: 2 });
  await start();
  await shows(tab, 'ul', 'Order 1Order 2');
  await shows(tab, '[role=status]', 'open');
  assert.deepEqual(tab.consoleErrors.filter((text) => !text.includes('net::ERR_')), []);
});

test('handlers end with their component, the stream with its provider', async (t) => {
  const { open, publish, connectionsAre } = await setUp(t);
  const main = `
    import { createApp, h, ref } from 'vue';
    import { provideSse, useSse } from '@sse-gateway/client/vue';
    window.seen = [];
    window.visible = ref(true);
    const Child = { setup() {
      useSse().on('order', ({ n }) => window.seen.push('child ' + n));
      return () => h('i');
    } };
    window.app = createApp({ setup() {
      const options = { url: 'https://events.example.com/events', ticketUrl: '/api/sse-ticket' };
      const { on, state } = window.sse = provideSse(options);
      on('order', ({ n }) => window.seen.push('parent ' + n));
      return () => h('div', [h('p', state.value), window.visible.value ? h(Child) : null]);
    } });
    window.app.mount('#app');
    window.alone = createApp({ setup: () => () => (useSse(), null) });
  `;
  const tab = await open({ '/app.js': await bundle({ main }) });
  const seen = (count) => tab.waitForFunction((count) => window.seen.length >= count, count);
  await shows(tab, 'p', 'open');
  await publish('order', { n: 1 });
  await seen(2);
  await tab.evaluate(() => { window.visible.value = false; });
  await publish('order', { n: 2 });
  await publish('order', { n: 3 });
  await seen(4);
  assert.deepEqual(
    (await tab.evaluate(() => window.seen)).sort(),
    ['child 1', 'parent 1', 'parent 2', 'parent 3'],
  );
  await connectionsAre(1);
  await tab.evaluate(() => window.app.unmount());
  await connectionsAre(0);
  assert.equal(await tab.evaluate(() => window.sse.state.value), 'closed');
  const error = await tab.evaluate(() => {
    try {
      window.alone.mount(document.createElement('p'));
      return '';
    } catch ({ message }) { return message; }
  });
  assert.match(error, /no ancestor of the component has called provideSse/);
});

test('server-side rendering opens no connection', async () => {
  const code = `
    import { createSSRApp, h } from 'vue';
    import { renderToString } from 'vue/server-renderer';
    import { provideSse, useSse } from '${CLIENT}/vue/index.js';
    const ticket = () => { console.log('a ticket was requested'); return 'x'; };
    const Child = { setup: () => {
      const { state } = useSse();
      return () => h('i', state.value);
    } };
    const setup = () => { provideSse({ url: '/events', ticket }); return () => h(Child); };
    console.log(await renderToString(createSSRApp({ setup })));
  `;
  const child = start(process.execPath, ['--input-type=module', '--eval', code], { cwd: CLIENT });
  assert.equal((await child.exited).code, 0, child.err);
  assert.equal(child.out, '<i>connecting</i>\n');
  assert.equal(child.err, '');
});
