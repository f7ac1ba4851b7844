// Starts a gateway with API keys, and opens its admin page.
import { createHash } from 'node:crypto';
import { browser, page } from '../lib/browser.js';
import { Gateway, Redis } from '../lib/servers.js';

export const READER = 'key-that-reads';
export const OPERATOR = 'key-that-operates';
/** Text that would run, or change the page, if it was not shown as text. */
export const HOSTILE = '<img/src=x/onerror=window.hacked=1><script>window.hacked=1</script>';

const entry = (key, scopes) =>
  ({ sha256: createHash('sha256').update(key).digest('hex'), scopes });
const KEYS = JSON.stringify([
  entry(READER, ['admin']),
  entry(OPERATOR, ['admin', 'operate']),
  entry('key-that-publishes', ['publish']),
]);

/** A Redis, a gateway, and a tab with its admin page. */
export async function adminPage(t, look) {
  const redis = await Redis.start(t);
  const gateway = await Gateway.start(t, {
    redis,
    settings: { 'api_keys': KEYS, 'presence.enabled': 'true', 'publishers.plain': 'off' },
  });
  const client = redis.client(t);
  const publish = (channel, type, payload, ...options) =>
    client.call('FCALL', 'sse_publish', 1, channel, type, payload, ...options);
  const tab = await page(t, await browser(t), gateway.admin + '/', look);
  return { redis, gateway, tab, publish };
}

export async function signIn(tab, key) {
  await tab.fill('#key', key);
  await tab.click('#sign-in button');
}

/** Waits until an element contains a text. */
export const shows = (tab, selector, text) =>
  tab.waitForFunction(
    ([selector, text]) =>
      [...document.querySelectorAll(selector)].some((node) => node.textContent.includes(text)),
    [selector, text],
  );

/** Opens a view, by its fragment. */
export const open = (tab, view, query = {}) =>
  tab.evaluate((hash) => { location.hash = hash; }, view + '?' + new URLSearchParams(query));

/** Opens a stream and reads until the first event. It ends with the test. */
export async function stream(t, url) {
  const abort = new AbortController();
  t.after(() => abort.abort());
  const response = await fetch(url, { signal: abort.signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const opened = {
    text: '',
    async until(part) {
      while (!opened.text.includes(part)) {
        const { value, done } = await reader.read();
        if (done) throw new Error(`no ${part} in ${opened.text}`);
        opened.text += value;
      }
    },
  };
  await opened.until('sse.connected');
  return opened;
}
