// Finds users, shows their connections, and ends their sessions.
import { api, mayEndSessions } from './api.js';
import { $, element, showResult } from './dom.js';
import { address, bytes, count, duration, listRow, none, showPairs } from './format.js';

let shown = null;

async function find(prefix) {
  showResult('users-result', '', '');
  try {
    const { users, total, complete } = await api('/api/v1/users', { prefix });
    const rows = users.map(({ user, connections }) => {
      const name = element('a', 'name mono', user);
      name.href = address('users', { prefix, user });
      const noun = connections === 1 ? ' connection' : ' connections';
      return listRow(name, [count(connections) + noun]);
    });
    $('users').replaceChildren(...(rows.length ? rows : [none('No user was found.')]));
    const shownOf = users.length < total ? `the first ${count(users.length)} of ` : '';
    $('users-count').textContent = shownOf + (complete ? '' : 'at least ') + count(total);
  } catch (error) {
    showResult('users-result', 'bad', error.message);
  }
}

function connectionRow(connection) {
  const { connectionId, transport, ageSeconds, queuedBytes, cursor, topics } = connection;
  const row = listRow(element('span', 'name mono', connectionId), [
    element('span', 'badge', transport),
    'open for ' + duration(ageSeconds * 1000),
    bytes(queuedBytes) + ' queued',
    'cursor ' + cursor,
  ]);
  const list = element('ul', 'chips');
  list.setAttribute('aria-label', 'Topics');
  list.append(...topics.map((topic) => element('li', '', topic)));
  if (topics.length) row.append(list);
  return row;
}

async function showUser(user) {
  shown = user;
  $('user-card').hidden = !user;
  if (!user) return;
  $('user-title').textContent = user;
  $('user-channel').href = address('channel', { name: `user:${user}:events` });
  showResult('end-result', '', '');
  await update();
  $('user-card').focus();
}

async function update() {
  const user = shown;
  try {
    const found = await api('/api/v1/connections', { user });
    if (user !== shown) return;
    const { connections, total, presence } = found;
    showPairs($('user-facts'), [
      ['Connections to this instance', count(total)],
      ['On all instances', presence ? count(presence.connections) : 'unknown: presence is off'],
      ['Online', presence && (presence.online ? 'yes' : 'no')],
    ]);
    $('connections').replaceChildren(...connections.map(connectionRow));
  } catch (error) {
    showResult('end-result', 'bad', error.message);
  }
}

async function endSessions() {
  const user = shown;
  try {
    await api('/api/v1/connections', { user }, { method: 'DELETE' });
    showResult('end-result', 'ok', `The sessions of ${user} were ended on all instances.`);
    await update();
  } catch (error) {
    showResult('end-result', 'bad', 'Not ended: ' + error.message);
  }
}

function confirm() {
  $('confirm-title').textContent = `End the sessions of ${shown}?`;
  $('confirm-text').textContent =
    'All streams of this user end on all instances, and tickets that were signed before now are ' +
    'rejected. The user needs a new ticket.';
  $('confirm').showModal();
}

export function setUpUsers() {
  $('users-form').onsubmit = (event) => {
    event.preventDefault();
    const prefix = $('prefix').value.trim();
    const next = address('users', { prefix });
    if (location.hash === next) find(prefix);
    else location.hash = next;
  };
  $('end').onclick = confirm;
  $('confirm-no').onclick = () => $('confirm').close();
  $('confirm-yes').onclick = () => { $('confirm').close(); endSessions(); };
}

export function openUsers(query) {
  const prefix = query.get('prefix') ?? '';
  $('prefix').value = prefix;
  $('end').disabled = !mayEndSessions();
  $('end').title = mayEndSessions() ? '' : 'The API key has no scope operate.';
  return Promise.all([find(prefix), showUser(query.get('user'))]);
}
