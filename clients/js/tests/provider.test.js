// Hooks on a server: what they render, and what they need.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createElement as h } from 'react';
import { renderToString } from 'react-dom/server';
import { get } from 'svelte/store';
import { createSSRApp } from 'vue';
import { renderToString as renderVue } from 'vue/server-renderer';
import * as react from '../react/index.js';
import { createSse } from '../svelte/index.js';
import { provideSse } from '../vue/index.js';
import { settled } from './lib/fake.js';

const { SseProvider } = react;
const render = (hook) => renderToString(h(() => String(hook())));
const below = (hook, props) =>
  renderToString(h(SseProvider, { url: '/events', ...props }, h(() => String(hook()))));

test('hooks without a provider or channel name what is missing', () => {
  const hooks = {
    useEvent: () => react.useEvent('order', () => {}),
    useHybrid: () => react.useHybrid({ load: async () => 1 }),
    useLatest: () => react.useLatest('broadcast:prices'),
    useSse: react.useSse,
    SseDevtools: () => react.SseDevtools({}),
  };
  for (const [name, hook] of Object.entries(hooks))
    assert.throws(() => render(hook), { message: `${name} must be used below an <SseProvider>` });
  assert.throws(
    () => below(() => react.useLatest('broadcast:other', 'x'), { retained: { 'broadcast:a': {} } }),
    /broadcast:other is not in `retained`/,
  );
});

test('server renders the state before the first connection', () => {
  const retained = { 'broadcast:a': { events: ['a'], key: () => 'x' } };
  const text = below(() => {
    const { status, lastEventId } = react.useSse();
    const { data, isLoading } = react.useHybrid({ load: async () => 1 });
    const polled = react.usePolling({ fetcher: async () => 1 });
    react.useGap(() => {});
    return [
      status, lastEventId, react.useLatest('broadcast:a', 'x'), react.useLatest('broadcast:a').size,
      data, isLoading, polled.isLoading, react.usePresence({ initial: ['1'] }).online.size,
    ];
  }, { retained });
  assert.equal(text, 'connecting,,,0,,true,true,1');
});

test('server opens no connection, even where polling or EventSource would work', async () => {
  const requests = [];
  const record = (...args) => { requests.push(args); return new Promise(() => {}); };
  const EventSource = class { constructor(url) { record(url); } addEventListener() {} close() {} };
  for (const own of [{ polling: 'only' }, { EventSource }]) {
    const options = { url: 'http://gateway/events', lastEventId: '1-0.a', fetch: record, ...own };
    const status = () => react.useResilientRealtime(options).status;
    assert.deepEqual(
      [render(status), below(() => react.useSse().status, options)], ['connecting', 'connecting'],
    );

    const vue = createSSRApp({
      setup() {
        const { state, lastEventId, latest, on, reconnect } = provideSse(options);
        on('order', () => {})();
        reconnect();
        return () => `${state.value} ${lastEventId} ${latest('price', 1).value}`;
      },
    });
    assert.match(await renderVue(vue), /connecting 1-0.a 1/);

    const sse = createSse(options);
    sse.on('order', () => {}); // never removed on a server
    sse.reconnect();
    assert.deepEqual([get(sse), sse.lastEventId, get(sse.latest('price', 1))],
      ['connecting', '1-0.a', 1]);
    await settled();
  }
  assert.deepEqual(requests, []);
});
