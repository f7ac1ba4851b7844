// The page: connects the modules. stream.js receives, published.js reads what was published,
// record.js remembers both, and timeline.js and list.js show it.
import { USER, read } from './config.js';
import { $, dismissNotice, showNotice } from './dom.js';
import { setUpFaults, showState } from './faults.js';
import { show } from './list.js';
import { loadPresence, updatePresence } from './presence.js';
import { setUpPublish } from './publish.js';
import { follow } from './published.js';
import * as record from './record.js';
import { setUpValues, updateValues } from './retained.js';
import * as stream from './stream.js';
import { setUpTerminal } from './terminal.js';
import { BUSY, CLOSING, GAPS } from './texts.js';
import { setUpTimeline } from './timeline.js';

function receive(event) {
  updateValues(event);
  updatePresence(event);
  if (event.position) $('last-event-id').textContent = event.position;
  if (event.type.startsWith('sse.')) systemEvent(event.type, event.data || {});
  else if (!event.retained) record.received(event);
  show(event);
}

function systemEvent(type, data) {
  if (type === 'sse.connected') {
    $('connection-id').textContent = data.connectionId;
    for (const key of ['busy', 'closing', 'ticket']) dismissNotice(key);
  } else if (type === 'sse.busy') {
    dismissNotice('closing');
    const text = BUSY[data.reason] || 'The gateway is busy: ' + data.reason;
    showNotice('busy', '', text, 'Try now', stream.reconnect);
  } else if (type === 'sse.closing') {
    const text = CLOSING[data.reason] || 'The gateway closed the stream: ' + data.reason;
    showNotice('closing', '', text);
  } else if (type === 'sse.gap') {
    record.gap(data.reason);
    const where = data.channels?.length ? ' Channels: ' + data.channels.join(', ') + '.' : '';
    const text = (GAPS[data.reason] || 'Events may be missing: ' + data.reason) + where;
    showNotice('gap', 'bad', text, 'Dismiss', () => dismissNotice('gap'));
  }
}

function setState(state) {
  showState(state);
  if (state === 'open') {
    // Replaced by sse.connected, which only the tab gets that opens the connection.
    $('connection-id').textContent = 'shared with another tab';
    loadPresence().catch(() => { /* the next event updates it */ });
    showGateway().catch(() => { $('gateway').textContent = '–'; });
  } else {
    $('connection-id').textContent = $('gateway').textContent = '–';
  }
}
async function showGateway() {
  const { gateway, pid } = await read('/dev/gateway');
  $('gateway').textContent = `${gateway} of 2 (process ${pid})`;
}

function onTicketError(error) {
  if (error.status !== 401 && error.status !== 403) return;
  const text = 'The demo was restarted, so this page is no longer authorised.';
  showNotice('ticket', 'bad', text, 'Reload', () => location.reload());
}

$('user').textContent = USER;
setUpPublish();
setUpTerminal();
setUpValues();
setUpFaults();
setUpTimeline();
$('add-names').onsubmit = (event) => {
  event.preventDefault();
  for (const name of $('name').value.split(',')) stream.listen(name.trim());
  $('name').value = '';
};
stream.setUp({ receive, setState, onTicketError });
// What is published from now on is shown.
await follow();
stream.open();
