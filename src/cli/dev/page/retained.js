// The panel of retained values: sets and deletes them, and shows those that the stream brought.
import { failure, publish } from './config.js';
import { $, element, showResult } from './dom.js';
import { restart } from './stream.js';

const CHANNEL = 'broadcast:values';
const values = new Map();

/** Takes an event of the stream. */
export function updateValues({ type, data }) {
  if (type === 'value') values.set(data?.key, data?.value);
  else if (type === 'value-removed') values.delete(data?.key);
  else if (type === 'sse.snapshot') {
    // Other keys were deleted meanwhile.
    const current = new Set(data?.channels?.[CHANNEL]);
    for (const key of values.keys()) if (!current.has(key)) values.delete(key);
  } else return;
  draw();
}

function draw() {
  const items = [...values].map(([key, value]) => element('li', '', `${key} = ${value}`));
  $('values').replaceChildren(...items);
}

/** Connects the panel. */
export function setUpValues() {
  const send = async (event, done) => {
    try {
      await publish({ channel: CHANNEL, ...event });
      showResult('values-result', 'ok', done);
    } catch (error) {
      showResult('values-result', 'bad', failure(error));
    }
  };
  $('keep').onsubmit = (event) => {
    event.preventDefault();
    const [key, value] = [$('key').value.trim(), $('value').value];
    send({ type: 'value', payload: { key, value }, keep: key }, 'Published with KEEP ' + key + '.');
  };
  $('forget').onclick = () => {
    const key = $('key').value.trim();
    const event = { type: 'value-removed', payload: { key }, forget: key };
    send(event, 'Published with FORGET ' + key + '.');
  };
  $('restart').onclick = () => {
    values.clear();
    draw();
    showResult('values-result', '', 'New stream without an id: the values follow sse.snapshot.');
    restart();
  };
}
