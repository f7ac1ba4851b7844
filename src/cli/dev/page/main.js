// The page: connects with clients/js, publishes, and demonstrates resuming.
import { connect } from '../client/index.js';
import { countEvent } from './chart.js';
import { $, dismissNotice, element, parse, showNotice, showResult } from './dom.js';
import { show } from './list.js';
import { VALUE_TYPES, setUpValues, updateValues } from './retained.js';
import { BUSY, CLOSING, GAPS } from './texts.js';

const config = (() => {
  const text = $('config').textContent.replace(/\{\{\w+\}\}/g, 'null');
  try { return JSON.parse(text); } catch { return {}; }
})();
const USER = config.user || 'demo';
const AWAY_SECONDS = 20; // time until a disconnected stream reconnects by itself
const MAX_RECENT = 200; // events to remember for the response to their publish request
const SYSTEM = [
  'sse.connected', 'sse.heartbeat', 'sse.gap', 'sse.snapshot', 'sse.busy', 'sse.closing',
];

// ---- Connection

let stream = null; // of clients/js
let lastId = '';
const names = new Set([
  'message', 'order-completed', 'notification', 'metric', 'headline', ...VALUE_TYPES,
]);

async function api(path, body) {
  const response = await fetch(path, {
    method: 'POST',
    headers: { 'authorization': 'Bearer ' + config.apiKey, 'content-type': 'application/json' },
    body,
  });
  const value = parse(await response.text());
  if (!response.ok) {
    const error = new Error(
      value && value.message ? value.message : 'the gateway returned status ' + response.status,
    );
    error.code = value && value.error;
    error.status = response.status;
    throw error;
  }
  if (value === null) throw new Error('the response of the gateway is not JSON');
  return value;
}

// Opens a stream after the last event id. The client handles tickets, reconnects and polling.
function open() {
  stream?.close();
  setState('connecting');
  stream = connect({ url: '/events', ticket, types: [...names], lastEventId: lastId || undefined });
  for (const name of [...SYSTEM, ...names]) addHandler(name);
  stream.onState(setState);
  stream.onError(onError);
}
async function ticket() {
  return (await api('/tickets', JSON.stringify({ user: USER, topics: ['*'] }))).ticket;
}
function onError(error) {
  if (error.status === 401 || error.status === 403) {
    showNotice(
      'ticket',
      'bad',
      'The gateway was restarted, so this page is no longer authorised.',
      'Reload',
      () => location.reload(),
    );
  }
}

function addHandler(name) {
  stream.on(name, (data, event) => receive(event));
}
function listen(list) {
  for (const name of list) {
    // The client interprets `*` as all names.
    if (!name || name === '*' || name.startsWith('sse.') || names.has(name)) continue;
    names.add(name);
    if (stream) addHandler(name);
  }
  $('names').replaceChildren(...[...names, 'sse.*'].map((name) => element('li', '', name)));
}

function receive(event) {
  // Browsers repeat the last id for frames without one, such as retained values and most sse.gap.
  const system = event.type.startsWith('sse.');
  const id = event.id === lastId && event.type !== 'sse.connected' ? '' : event.id;
  updateValues(event);
  if (event.id) {
    lastId = event.id;
    $('last-event-id').textContent = lastId;
  }
  if (system) systemEvent(event.type, event.data || {});
  else {
    countEvent();
    received(id);
  }
  show({
    type: event.type,
    data: event.text,
    id,
    time: new Date(),
    away: !system && away.ids.has(id),
    retained: event.retained,
  });
}

function systemEvent(type, data) {
  if (type === 'sse.connected') {
    $('connection-id').textContent = data.connectionId || '–';
    $('user').textContent = data.user || USER;
    for (const key of ['busy', 'closing', 'ticket']) dismissNotice(key);
  } else if (type === 'sse.busy') {
    dismissNotice('closing');
    showNotice(
      'busy',
      '',
      BUSY[data.reason] || 'The gateway is busy: ' + data.reason,
      'Try now',
      () => stream.reconnect(),
    );
  } else if (type === 'sse.closing') {
    showNotice(
      'closing',
      '',
      CLOSING[data.reason] || 'The gateway closed the stream: ' + data.reason,
    );
  } else if (type === 'sse.gap') {
    const where =
      Array.isArray(data.channels) && data.channels.length
        ? ' Channels: ' + data.channels.join(', ') + '.'
        : '';
    showNotice(
      'gap',
      'bad',
      (GAPS[data.reason] || 'Events may be missing: ' + data.reason) + where,
      'Dismiss',
      () => dismissNotice('gap'),
    );
  }
}

function setState(state) {
  if ($('state').dataset.state === state) return;
  $('state').dataset.state = state;
  $('state').textContent = state;
  $('drop').disabled = state !== 'open';
  if (state !== 'open') $('connection-id').textContent = '–';
  if (state === 'open' && away.refocus) { away.refocus = false; $('drop').focus(); }
  checkAway();
}

// ---- Publishing

const PRESETS = [
  {
    channel: 'user:' + USER + ':events',
    type: 'order-completed',
    payload: '{\n  "orderId": 7,\n  "total": "49.90"\n}',
  },
  {
    channel: 'broadcast:news',
    type: 'notification',
    payload: '{\n  "title": "Hello, everyone"\n}',
  },
];
function preset({ channel, type, payload }) {
  $('channel').value = channel;
  $('type').value = type;
  $('payload').value = payload;
}

// Sends the payload exactly as typed; parsing it could change numbers and keys.
function body(channel, type, payload) {
  return (
    '{"channel":' +
    JSON.stringify(channel) +
    ',"type":' +
    JSON.stringify(type) +
    ',"payload":' +
    payload +
    '}'
  );
}

let waiting = null; // the last published event until it is received: { id, at }
function received(id) {
  if (away.ids.has(id)) { away.seen.push(id); checkAway(); }
  if (waiting && waiting.id === id) {
    showLatency(id, waiting.at, performance.now());
    waiting = null;
  } else {
    recent.set(id, performance.now());
    if (recent.size > MAX_RECENT) recent.delete(recent.keys().next().value);
  }
}
function showLatency(id, sent, seen) {
  showResult(
    'publish-result',
    'ok',
    'Published as ' + id + ', arrived in ' + Math.max(1, Math.round(seen - sent)) + ' ms.',
  );
}
// Time of arrival by id: an event can arrive before the response to its publish request.
const recent = new Map();

async function publish(count) {
  const channel = $('channel').value.trim(),
    type = $('type').value.trim() || 'message',
    payload = $('payload').value.trim();
  waiting = null;
  if (!channel) return showResult('publish-result', 'bad', 'Enter a channel.');
  try { JSON.parse(payload); } catch (error) {
    return showResult(
      'publish-result',
      'bad',
      'The payload is not valid JSON: ' + error.message + '. Put text in double quotes.',
    );
  }
  listen([type]);
  const started = performance.now();
  try {
    if (count === 1) {
      const { id } = await api('/publish', body(channel, type, payload));
      if (recent.has(id)) showLatency(id, started, recent.get(id));
      else {
        waiting = { id, at: started };
        showResult('publish-result', '', 'Published as ' + id + '.');
      }
    } else {
      const results = await api(
        '/publish',
        '[' +
          Array(count)
            .fill(body(channel, type, payload))
            .join(',') +
          ']',
      );
      const refused = results.find((entry) => entry.error);
      if (refused)
        showResult('publish-result', 'bad', 'Refused: ' + (refused.message || refused.error));
      else showResult('publish-result', 'ok', 'Published ' + results.length + ' events.');
    }
  } catch (error) {
    showResult(
      'publish-result',
      'bad',
      'Not published: ' + error.message + (error.code ? ' (' + error.code + ')' : ''),
    );
  }
}

// ---- Disconnect and resume

const RESUME_TEXT = $('resume-text').textContent;
const away = {
  ids: new Set(),
  seen: [],
  running: false,
  returning: false,
  left: 0,
  timer: 0,
  number: 0,
};

function disconnect() {
  Object.assign(away, {
    ids: new Set(),
    seen: [],
    running: true,
    returning: false,
    left: AWAY_SECONDS,
  });
  stream.close();
  for (const key of ['busy', 'closing']) dismissNotice(key);
  setState('disconnected');
  showResult('resume-result', '', '');
  $('drop').hidden = true;
  $('publish-away').hidden = $('back').hidden = false;
  $('publish-away').focus();
  clearInterval(away.timer);
  away.timer = setInterval(() => {
    away.left -= 1;
    if (away.left <= 0) reconnect();
    else showCountdown();
  }, 1000);
  showCountdown();
}
function showCountdown() {
  $('resume-text').textContent =
    'Disconnected after ' + (lastId || 'the start') + '. Reconnecting in ' + away.left + ' s.';
}
async function publishAway() {
  const channel = 'user:' + USER + ':events';
  const bodies = [1, 2, 3].map(() =>
    body(channel, 'notification', JSON.stringify({ missed: (away.number += 1) })),
  );
  $('publish-away').disabled = true;
  try {
    for (const entry of await api('/publish', '[' + bodies.join(',') + ']')) {
      if (entry.error) throw new Error(entry.message || entry.error);
      away.ids.add(entry.id);
    }
    if (away.running) {
      showResult('resume-result', '', away.ids.size + ' events published, none received yet.');
      $('back').focus();
    } else checkAway();
  } catch (error) {
    showResult('resume-result', 'bad', 'Not published: ' + error.message);
  }
  $('publish-away').disabled = false;
}
function reconnect() {
  clearInterval(away.timer);
  // The focused button disappears: move the focus to the disconnect button once it is enabled.
  away.refocus =
    document.activeElement === $('back') || document.activeElement === $('publish-away');
  Object.assign(away, { running: false, returning: true });
  $('drop').hidden = false;
  $('publish-away').hidden = $('back').hidden = true;
  $('resume-text').textContent = 'Resuming after ' + (lastId || 'the start') + '.';
  open();
}
// Reports when all events published while disconnected have arrived, once and in order.
function checkAway() {
  if (!away.returning || $('state').dataset.state !== 'open') return;
  const sent = [...away.ids];
  if (!sent.length) {
    away.returning = false;
    showResult(
      'resume-result',
      'ok',
      'Reconnected. Nothing was published here while disconnected.',
    );
  } else if (away.seen.length >= sent.length) {
    const right =
      away.seen.length === sent.length && sent.every((id, place) => id === away.seen[place]);
    showResult(
      'resume-result',
      right ? 'ok' : 'bad',
      right
        ? 'Reconnected. All ' +
            sent.length +
            ' events published while disconnected arrived, once and in order.'
        : 'Reconnected, but not every event arrived once and in order: ' + away.seen.join(', '),
    );
  } else {
    showResult(
      'resume-result',
      '',
      'Reconnected. ' + away.seen.length + ' of ' + sent.length + ' events have arrived.',
    );
    return;
  }
  $('resume-text').textContent = RESUME_TEXT;
}

// ---- Setup

// The server provides `redis-cli` with the address of its Redis.
function addCommand(label, args) {
  const text = config.redisCli + args;
  const box = element('div', 'command');
  const line = element('pre', '', text);
  line.tabIndex = 0;
  line.setAttribute('aria-label', label);
  const copy = element('button', 'small', 'Copy');
  copy.type = 'button';
  copy.setAttribute('aria-label', 'Copy: ' + label);
  copy.onclick = async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = 'Copied';
    } catch {
      copy.textContent = 'Copy failed';
    }
    setTimeout(() => { copy.textContent = 'Copy'; }, 1500);
  };
  box.append(line, copy);
  $('commands').append(element('p', 'label', label), box);
}

for (const choice of PRESETS) {
  const button = element('button', 'small', choice.channel);
  button.type = 'button';
  button.onclick = () => preset(choice);
  $('presets').append(button);
}
preset(PRESETS[0]);
listen([]);
$('user').textContent = USER;
if (config.redisCli) {
  $('terminal').hidden = false;
  addCommand(
    'Plain publish',
    ' PUBLISH user:' + USER + `:events '{"type":"order-completed","payload":{"orderId":7}}'`,
  );
  addCommand(
    'Durable publish',
    ` FCALL sse_publish 1 '{broadcast}:news' notification '{"title":"Hello, everyone"}'`,
  );
}
setUpValues(
  (event) => api('/publish', JSON.stringify(event)),
  () => { lastId = ''; open(); },
);
$('publish').onsubmit = (event) => { event.preventDefault(); publish(1); };
$('payload').onkeydown = (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    publish(1);
  }
};
$('burst').onclick = () => publish(50);
$('drop').onclick = disconnect;
$('publish-away').onclick = publishAway;
$('back').onclick = reconnect;
$('add-names').onsubmit = (event) => {
  event.preventDefault();
  listen(
    $('name')
      .value.split(',')
      .map((name) => name.trim()),
  );
  $('name').value = '';
};
open();
