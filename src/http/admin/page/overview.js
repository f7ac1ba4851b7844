// The state of the instance, read again every few seconds while the view is visible.
import { api } from './api.js';
import { Sparkline } from './chart.js';
import { $, element } from './dom.js';
import { address, bytes, count, duration, latency, none, rate, listRow, showPairs }
  from './format.js';

/** Interval, in ms, between two requests. */
const INTERVAL = 3000;
const TILES = [
  ['connections', 'Streams', true],
  ['events', 'Events received', true],
  ['deliveries', 'Deliveries', true],
  ['latency', 'Delivery latency p99', true],
  ['bytes', 'Sent', true],
  ['queued', 'Queued', true],
];
const tiles = new Map();
let earlier = null;
let running = false;

function setUpTiles() {
  for (const [name, title, hasLine] of TILES) {
    const tile = element('div');
    const [value, note] = [element('div', 'value', '–'), element('div', 'note')];
    const body = element('dd');
    const line = hasLine ? new Sparkline() : null;
    body.append(value, note, ...(line ? [line.node] : []));
    tile.append(element('dt', '', title), body);
    tile.dataset.tile = name;
    $('tiles').append(tile);
    tiles.set(name, { value, note, line });
  }
}

function show(name, text, note, value) {
  const tile = tiles.get(name);
  tile.value.textContent = text;
  tile.note.textContent = note;
  if (value !== undefined) tile.line?.add(value);
}

/** The quantile of the deliveries between two responses, in seconds; null if there were none. */
export function quantileBetween(before, after, share) {
  const total = after.count - before.count;
  if (total <= 0) return null;
  const rank = share * total;
  let [lower, below] = [0, 0];
  for (const [index, { le, count: upto }] of after.buckets.entries()) {
    const counted = upto - before.buckets[index].count;
    if (counted >= rank) {
      return lower + (le - lower) * ((rank - below) / Math.max(counted - below, 1));
    }
    [lower, below] = [le, counted];
  }
  return lower;
}

function showTiles(now) {
  const { connections, counters } = now;
  const open = connections.streams;
  const polls = connections.polls ? `, ${count(connections.polls)} polls` : '';
  show('connections', count(open), `of ${count(connections.limit)}${polls}`, open);
  const queued = connections.queuedBytes;
  show('queued', bytes(queued), 'of ' + bytes(connections.queuedBytesLimit), queued);
  if (!earlier || earlier.instance !== now.instance || now.uptimeMs <= earlier.uptimeMs) {
    show('latency', latency(now.latency.p99), 'since the start');
    return;
  }
  const seconds = (now.uptimeMs - earlier.uptimeMs) / 1000;
  const perSecond = (name) => (counters[name] - earlier.counters[name]) / seconds;
  const events = perSecond('userEvents') + perSecond('broadcasts');
  const all = counters.userEvents + counters.broadcasts;
  show('events', rate(events) + '/s', count(all) + ' in total', events);
  const deliveries = perSecond('deliveries');
  show('deliveries', rate(deliveries) + '/s', count(counters.deliveries) + ' in total', deliveries);
  const sent = perSecond('bytesSent');
  show('bytes', bytes(sent) + '/s', bytes(counters.bytesSent) + ' in total', sent);
  const recent = (share) => quantileBetween(earlier.latency, now.latency, share);
  const p99 = recent(0.99);
  if (p99 === null) show('latency', latency(now.latency.p99), 'since the start', 0);
  else show('latency', latency(p99), `p50 ${latency(recent(0.5))}`, p99);
}

function serverRow(server) {
  const name = element('span', 'name mono', server.address ?? 'not located yet');
  const age = server.watermarkAgeMs;
  const isLate = age === null || age >= 3000;
  const [kind, state] =
    !server.up ? ['bad', 'no link'] : isLate ? ['warn', 'no watermark'] : ['ok', 'linked'];
  return listRow(name, [
    element('span', 'badge ' + kind, state),
    'watermark ' + (age === null ? 'never' : duration(age) + ' ago'),
    count(server.subscriptions) + ' users subscribed',
    server.epochChanges ? count(server.epochChanges) + ' new epochs' : '',
    server.slots === null ? '' : count(server.slots) + ' slots',
  ]);
}

function topicRow({ topic, connections }, most) {
  const isPattern = topic.endsWith('*');
  const name = element(isPattern ? 'span' : 'a', 'name mono', topic);
  if (!isPattern) name.href = address('channel', { name: 'broadcast:' + topic });
  const bar = element('meter');
  bar.max = most;
  bar.value = connections;
  bar.setAttribute('aria-label', 'Connections');
  return listRow(name, [bar, count(connections)]);
}

const reasons = (counts, className = '') =>
  Object.entries(counts)
    .sort((one, other) => other[1] - one[1])
    .map(([name, value]) => [name, count(value), value === 0 ? 'zero' : className]);
/** Without the reasons that did not occur. */
function occurred(counts) {
  const pairs = reasons(counts).filter(([,, className]) => className !== 'zero');
  return pairs.length ? pairs : [['none', '0', 'zero']];
}

function showState({ ready, unreadyReason }) {
  const pill = $('state');
  pill.hidden = false;
  pill.dataset.state = ready ? 'open' : 'closed';
  pill.textContent = ready ? 'ready' : 'not ready: ' + unreadyReason;
}

function showAll(now) {
  showState(now);
  showTiles(now);
  const servers = now.servers.map(serverRow);
  $('servers').replaceChildren(...(servers.length ? servers : [none('No server is known yet.')]));
  const most = now.topics[0]?.connections ?? 1;
  const topics = now.topics.map((topic) => topicRow(topic, most));
  $('topics').replaceChildren(...(topics.length ? topics : [none('No connections.')]));
  showPairs($('gaps'), reasons(now.gaps, 'alert'));
  showPairs($('closed'), occurred(now.closed));
  showPairs($('busy'), occurred(now.busy));
  showPairs($('instance'), [
    ['Instance', now.instance],
    ['Version', now.version],
    ['Running for', duration(now.uptimeMs)],
    ['Recorder of plain publishes', now.recorderRole ?? 'off'],
    ['Connections without a user', count(now.connections.anonymous)],
    ['Replayed events', count(now.counters.replayed)],
    ['Queue overflows', count(now.counters.queueOverflows)],
  ]);
  earlier = now;
}

async function read() {
  if (running) return;
  running = true;
  try {
    showAll(await api('/api/v1/overview'));
  } catch (error) {
    $('state').hidden = false;
    $('state').dataset.state = 'closed';
    $('state').textContent = error.status ? 'refused' : 'no response';
  } finally {
    running = false;
  }
}

setUpTiles();
/** Reads the state now, and again while `isShown` returns true and the tab is visible. */
export function follow(isShown) {
  const tick = () => { if (!document.hidden && isShown()) read(); };
  setInterval(tick, INTERVAL);
  document.addEventListener('visibilitychange', tick);
  return read;
}
