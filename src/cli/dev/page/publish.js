// The form that publishes events.
import { USER_CHANNEL, failure, publish } from './config.js';
import { $, element, showResult } from './dom.js';
import * as record from './record.js';
import { listen } from './stream.js';

const PRESETS = [
  {
    channel: USER_CHANNEL,
    type: 'order-completed',
    payload: '{\n  "orderId": 7,\n  "total": "49.90"\n}',
  },
  {
    channel: 'broadcast:news',
    type: 'notification',
    payload: '{\n  "title": "Hello, everyone"\n}',
  },
];
/** The published event that has not arrived yet: { id, at }. */
let waiting = null;

function preset({ channel, type, payload }) {
  $('channel').value = channel;
  $('type').value = type;
  $('payload').value = payload;
}

/** The event exactly as typed: parsing the payload could change numbers and keys. */
const body = (channel, type, payload) =>
  `{"channel":${JSON.stringify(channel)},"type":${JSON.stringify(type)},"payload":${payload}}`;

/** Shows the latency of the awaited event once it has arrived. */
function showLatency() {
  const received = waiting && record.find(waiting.id)?.received;
  if (!received) return;
  const text = `Published as ${waiting.id}, arrived in ${Math.max(1, received - waiting.at)} ms.`;
  showResult('publish-result', 'ok', text);
  waiting = null;
}

async function submit(count) {
  const channel = $('channel').value.trim();
  const type = $('type').value.trim() || 'message';
  const payload = $('payload').value.trim();
  const fail = (text) => showResult('publish-result', 'bad', text);
  waiting = null;
  if (!channel) return fail('Enter a channel.');
  try { JSON.parse(payload); } catch (error) {
    return fail(`The payload is not valid JSON: ${error.message}. Put text in double quotes.`);
  }
  listen(type);
  const at = Date.now();
  const event = body(channel, type, payload);
  try {
    const ids = await publish(count === 1 ? event : '[' + Array(count).fill(event) + ']');
    if (count > 1) return showResult('publish-result', 'ok', `Published ${ids.length} events.`);
    showResult('publish-result', '', `Published as ${ids[0]}.`);
    waiting = { id: ids[0], at };
    showLatency();
  } catch (error) {
    fail(failure(error));
  }
}

export function setUpPublish() {
  for (const choice of PRESETS) {
    const button = element('button', 'small', choice.channel);
    button.type = 'button';
    button.onclick = () => preset(choice);
    $('presets').append(button);
  }
  preset(PRESETS[0]);
  record.onChange(showLatency);
  $('publish').onsubmit = (event) => { event.preventDefault(); submit(1); };
  $('payload').onkeydown = (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      submit(1);
    }
  };
  $('burst').onclick = () => submit(50);
}
