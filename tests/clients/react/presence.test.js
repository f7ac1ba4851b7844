// usePresence: the set of users who are online, from the initial state and events.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ticket } from '../lib/servers.js';
import { setUp } from './lib.js';

test('usePresence applies events to the initial state', async (t) => {
  const { gateway, tab, show, status } = await setUp(t, {
    claims: { presence: true },
    settings: { 'presence.enabled': 'true', 'presence.linger': '100ms' },
  });
  const online = (users) =>
    tab.waitForFunction((users) => document.querySelector('output')?.textContent === users, users);
  const connect = async (user) => {
    const opened = new AbortController();
    t.after(() => opened.abort());
    const url = `${gateway.url}/events?ticket=${ticket(user)}`;
    await fetch(url, { signal: opened.signal });
    return opened;
  };
  await show('People');
  await status('open');
  await online('42');
  const one = await connect('1');
  await online('1 42');
  // The backend's response is older than the events, or as old.
  await show('People', { initial: '7 8' });
  await online('1 42 7 8');
  one.abort();
  await online('42 7 8');
  await connect('7');
  await connect('9');
  await online('42 7 8 9');

  assert.deepEqual(tab.consoleErrors, []);
});
