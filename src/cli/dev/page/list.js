// The list of events. Draws at most 200 rows per frame, even at thousands of events per second.
import { currentCount, totalEvents } from './chart.js';
import { $, clock, element, pretty } from './dom.js';

const MAX_ROWS = 200;
const NO_EVENTS = 'No events yet. Publish one here or from a terminal.';
let pending = []; // received since the last frame, oldest first
let drawScheduled = false;
const rows = []; // newest first: { node, system, heartbeat, text }

export function show(item) {
  pending.push(item);
  if (pending.length > MAX_ROWS) pending.shift();
  if (drawScheduled) return;
  drawScheduled = true;
  // At high rates a few updates per second are enough.
  setTimeout(requestAnimationFrame, currentCount() > 100 ? 150 : 0, draw);
}

function draw() {
  drawScheduled = false;
  const fresh = pending;
  pending = [];
  for (const item of fresh) {
    const row = makeRow(item);
    rows.unshift(row);
    $('events').prepend(row.node);
  }
  for (const row of rows.splice(MAX_ROWS)) row.node.remove();
  $('received').textContent = totalEvents().toLocaleString('en');
  filter();
}

function makeRow(item) {
  const system = item.type.startsWith('sse.');
  const node = element(
    'li',
    'event fresh' + (system ? ' system' : '') + (item.type === 'sse.gap' ? ' alert' : ''),
  );
  node.dataset.type = item.type;
  node.dataset.id = item.id;
  const type = element('div', 'type', item.type);
  if (item.away) type.append(element('span', 'badge', 'published while disconnected'));
  if (item.retained) type.append(element('span', 'badge', 'retained value'));
  const meta = element('div', 'meta', item.id);
  meta.append(element('time', '', clock(item.time)));
  const data = element('pre', '', system ? item.data : pretty(item.data));
  if (!system && data.textContent.split('\n').length > 9) {
    data.tabIndex = 0;
    data.setAttribute('aria-label', 'Data of ' + item.type);
  }
  node.append(type, meta, data);
  return {
    node,
    system,
    heartbeat: item.type === 'sse.heartbeat',
    text: (item.type + ' ' + item.id + ' ' + item.data).toLowerCase(),
  };
}

function filter() {
  const wanted = $('filter').value.trim().toLowerCase();
  const system = $('show-system').checked;
  const heartbeats = $('show-heartbeats').checked;
  let visible = 0;
  for (const row of rows) {
    const hide =
      (row.system && !system) ||
      (row.heartbeat && !heartbeats) ||
      (wanted && !row.text.includes(wanted));
    row.node.hidden = Boolean(hide);
    if (!hide) visible += 1;
  }
  const noEvents = !rows.some((row) => !row.system);
  $('empty').hidden = visible > 0 && !noEvents;
  $('empty').textContent = noEvents ? NO_EVENTS : 'No event matches the filter.';
}

$('filter').oninput = $('show-system').onchange = $('show-heartbeats').onchange = filter;
$('clear').onclick = () => { for (const row of rows.splice(0)) row.node.remove(); filter(); };
filter();
