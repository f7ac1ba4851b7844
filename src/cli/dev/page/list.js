// The list of events. Draws at most 200 rows per frame, even at thousands of events per second.
import { $, clock, element, pretty } from './dom.js';
import * as record from './record.js';

const MAX_ROWS = 200;
const NO_EVENTS = 'No events yet. Publish one here or from a terminal.';
const INTERVAL = 100; // minimum time between two updates, in ms
let pending = []; // received since the last frame, oldest first
let drawScheduled = false;
let drawn = 0;
const rows = []; // newest first: { id, node, system, heartbeat, text }

export function show(item) {
  pending.push(item);
  if (pending.length > MAX_ROWS) pending.shift();
  schedule();
}

function schedule() {
  if (drawScheduled) return;
  drawScheduled = true;
  setTimeout(requestAnimationFrame, Math.max(0, drawn + INTERVAL - Date.now()), draw);
}

function draw() {
  drawScheduled = false;
  drawn = Date.now();
  const fresh = pending;
  pending = [];
  for (const item of fresh) {
    const row = makeRow(item);
    rows.unshift(row);
    $('events').prepend(row.node);
  }
  for (const row of rows.splice(MAX_ROWS)) row.node.remove();
  markReplayed();
  filter();
}

/** When an event was published may become known after it has arrived. */
function markReplayed() {
  for (const row of rows) {
    const event = row.id && !row.replayed && record.find(row.id);
    if (!event || !record.isReplayed(event)) continue;
    row.replayed = true;
    row.type.append(element('span', 'badge', 'replayed'));
  }
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
  if (item.history) type.append(element('span', 'badge', 'new name, read from the history'));
  if (item.retained) type.append(element('span', 'badge', 'retained value'));
  const meta = element('div', 'meta', item.id);
  meta.append(element('time', '', clock(new Date(item.time))));
  const data = element('pre', '', system ? item.text : pretty(item.text));
  if (!system && data.textContent.split('\n').length > 9) {
    data.tabIndex = 0;
    data.setAttribute('aria-label', 'Data of ' + item.type);
  }
  node.append(type, meta, data);
  return {
    id: item.id,
    type,
    node,
    system,
    heartbeat: item.type === 'sse.heartbeat',
    text: (item.type + ' ' + item.id + ' ' + item.text).toLowerCase(),
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
$('clear').onclick = () => {
  pending = [];
  for (const row of rows.splice(0)) row.node.remove();
  filter();
};
record.onChange(schedule);
filter();
