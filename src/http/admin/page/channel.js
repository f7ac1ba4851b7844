// A channel: its log, retained values and presence. Payloads are read only on request.
import { api } from './api.js';
import { $, element, showResult } from './dom.js';
import { address, bytes, count, duration, listRow, none, payload, showPairs, timeOfId }
  from './format.js';

/** Number of events in a page of the log. */
const PAGE = 50;
let channel = null;
let next = null;

const withPayloads = () => ($('payloads').checked ? 'true' : undefined);

function eventRow(event) {
  const name = element('a', 'name mono', event.id);
  name.href = address('trace', { id: event.id, channel });
  const row = listRow(name, [
    event.type === null
      ? element('span', 'badge warn', 'written by another client')
      : element('span', 'badge', event.type),
    event.bytes === null ? '' : bytes(event.bytes),
    timeOfId(event.id),
    event.keep && 'keep ' + event.keep,
    event.forget && 'forget ' + event.forget,
    event.tags,
  ]);
  const shown = payload(event);
  if (shown) row.append(shown);
  return row;
}

function valueRow(value) {
  const row = listRow(value.key, [
    element('span', 'badge', value.type), bytes(value.bytes), timeOfId(value.id),
  ]);
  const shown = payload(value);
  if (shown) row.append(shown);
  return row;
}

async function showLog(before) {
  const query = { channel, limit: PAGE, before, payloads: withPayloads() };
  const page = await api('/api/v1/log', query);
  const rows = page.events.map(eventRow);
  if (before) $('log').append(...rows);
  else $('log').replaceChildren(...(rows.length ? rows : [none('The log is empty.')]));
  next = page.next;
  $('older').hidden = !next;
}

async function showState() {
  const state = await api('/api/v1/channel', { channel });
  showPairs($('channel-facts'), [
    ['Events in the log', `${count(state.length)} (about ${count(state.maxLength)} are kept)`],
    ['Oldest', state.firstId && `${state.firstId} (${timeOfId(state.firstId)})`],
    ['Newest', state.lastId && `${state.lastId} (${timeOfId(state.lastId)})`],
    ['Retention', duration(state.retentionSeconds * 1000) + ' after the last event'],
    ['Largest payload', bytes(state.maxEventBytes)],
    ['Rule', [
      state.keepRequired && 'events need a key',
      state.ephemeral && 'events are not stored',
      state.rate !== null && `at most ${count(state.rate)} events per second`,
    ].filter(Boolean).join(', ')],
  ]);
}

async function showRetained() {
  const { values, total } = await api('/api/v1/retained', { channel, payloads: withPayloads() });
  const rows = values.map(valueRow);
  if (values.length < total) rows.push(none(`and ${count(total - values.length)} more`));
  $('retained').replaceChildren(...(rows.length ? rows : [none('None.')]));
}

async function showPresence() {
  $('presence').replaceChildren();
  const user = /^user:(.*):events$/.exec(channel)?.[1];
  try {
    if (user !== undefined) {
      const { online, connections } = await api('/api/v1/presence', { user });
      const times = count(connections) + (connections === 1 ? ' connection' : ' connections');
      $('presence-text').textContent = `${user} is ${online ? 'online' : 'offline'}: ${times}.`;
      return;
    }
    const topic = channel.replace(/^broadcast:/, '');
    const { users, online, complete } = await api('/api/v1/presence', { topic });
    const least = complete ? '' : 'at least ';
    const isCut = users.length < online;
    const first = isCut ? `; the first ${count(users.length)} are listed` : '';
    $('presence-text').textContent = `${least}${count(online)} users receive this topic${first}.`;
    $('presence').replaceChildren(...users.map((user) => element('li', '', user)));
  } catch (error) {
    if (error.code !== 'presence-disabled') throw error;
    $('presence-text').textContent = 'Presence is off (presence.enabled).';
  }
}

async function show() {
  $('channel-parts').hidden = true;
  showPairs($('channel-facts'), []);
  showResult('channel-result', '', '');
  if (!channel) return;
  try {
    await showState();
    await Promise.all([showLog(), showRetained(), showPresence()]);
    $('channel-parts').hidden = false;
  } catch (error) {
    showResult('channel-result', 'bad', error.message);
  }
}

export function setUpChannel() {
  $('channel-form').onsubmit = (event) => {
    event.preventDefault();
    const to = address('channel', { name: $('channel').value.trim() });
    if (location.hash === to) show();
    else location.hash = to;
  };
  $('payloads').onchange = show;
  $('older').onclick = async () => {
    try {
      await showLog(next);
    } catch (error) {
      showResult('channel-result', 'bad', error.message);
    }
  };
}

export function openChannel(query) {
  const name = query.get('name') ?? '';
  // Another channel's payloads were not asked for.
  if (name !== channel) $('payloads').checked = false;
  channel = name;
  $('channel').value = name;
  return show();
}
