// Publishes a test event.
import { api, mayPublish } from './api.js';
import { $, showResult } from './dom.js';

/** The event exactly as typed: parsing the payload could change numbers and keys. */
const body = (channel, type, payload) =>
  `{"channel":${JSON.stringify(channel)},"type":${JSON.stringify(type)},"payload":${payload}}`;

async function publish() {
  const channel = $('publish-channel').value.trim();
  const type = $('publish-type').value.trim() || 'message';
  const payload = $('publish-payload').value.trim();
  const fail = (text) => showResult('publish-result', 'bad', text);
  if (!channel) return fail('Enter a channel.');
  try { JSON.parse(payload); } catch (error) {
    return fail(`The payload is not valid JSON: ${error.message}. Put text in double quotes.`);
  }
  $('publish').disabled = true;
  try {
    const headers = { 'content-type': 'application/json' };
    const options = { method: 'POST', body: body(channel, type, payload), headers };
    const { id } = await api('/api/v1/events', {}, options);
    showResult('publish-result', 'ok', id ? `Published as ${id}.` : 'Published; it is not stored.');
  } catch (error) {
    fail('Not published: ' + error.message + (error.code ? ` (${error.code})` : ''));
  }
  $('publish').disabled = !mayPublish();
}

export function setUpPublish() {
  $('publish-form').onsubmit = (event) => { event.preventDefault(); publish(); };
}

export function openPublish() {
  $('publish').disabled = !mayPublish();
  if (!mayPublish()) {
    showResult('publish-result', 'warn', 'The API key has neither the scope operate nor publish.');
  }
}
