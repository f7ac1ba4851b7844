// Where an event is or was, and what a client that resumes from its id receives.
import { api } from './api.js';
import { $, element, showResult } from './dom.js';
import { address, bytes, count, duration, payload, showPairs } from './format.js';

const PLACES = {
  'in-log': 'in the log',
  'trimmed': 'trimmed: the log names this id but no longer contains the event',
  'maybe-trimmed': 'not in the log; it may be one of the trimmed events around this id',
  'maybe-expired': 'not in the log, which starts after it; the event may have expired',
  'never': 'never in the log: the id does not belong to an event of this channel',
};

function card(title, pairs) {
  const section = element('section', 'card');
  const list = element('dl', 'pairs');
  showPairs(list, pairs);
  section.append(element('h2', '', title), list);
  return section;
}

function resumed({ gap, replayed }) {
  const events = count(replayed) + (replayed === 1 ? ' event' : ' events');
  if (!gap) return replayed ? `replay of ${events}, no gap` : 'nothing to replay, no gap';
  return gap === 'unknown-id' ? 'a gap (unknown-id), then live' : `a gap (${gap}), then ${events}`;
}

function retainedText({ key, isForget, isCurrent, value }) {
  if (isForget) return `forgets ${key}` + (value ? `, set again by ${value}` : '');
  const state = value ? `replaced by ${value}` : 'deleted';
  return `keeps ${key}, ` + (isCurrent ? 'the current value' : state);
}

function channelCard({ channel, place, event, successor, resume }) {
  const section = card(channel, [
    ['State', PLACES[place] ?? place],
    ['Type', event && (event.type ?? 'unknown: written by another client')],
    ['Size', event && bytes(event.bytes)],
    ['Retry', event?.retryMs && event.retryMs + ' ms'],
    ['Idempotency key', event?.key],
    ['Retained value', event?.retained && retainedText(event.retained)],
    ['Tags', event?.tags],
    ['Previous event', event && (event.predecessor
      ? event.predecessor + (event.predecessorInLog ? '' : ', no longer in the log')
      : 'none')],
    ['Next event', successor ?? 'none'],
    ['A client that resumes here gets', resumed(resume)],
  ]);
  const data = event && { ...event, data: event.payload };
  const shown = data && payload(data);
  if (shown) {
    const rows = element('ul', 'rows');
    rows.append(element('li'));
    rows.firstChild.append(shown);
    section.append(rows);
  }
  const link = element('a', 'button', 'Channel');
  link.href = address('channel', { name: channel });
  const actions = element('div', 'row end');
  actions.append(link);
  section.append(actions);
  return section;
}

function searched(search) {
  return search && `${count(search.logs)} logs` + (search.complete ? '' : ', not all');
}

async function trace(id, channel) {
  $('trace-report').replaceChildren();
  if (!id) return;
  showResult('trace-result', '', 'Searching…');
  try {
    const payloads = $('trace-payloads').checked ? 'true' : undefined;
    const report = await api('/api/v1/trace', { id, channel, payloads });
    const candidates = report.search?.maybeChannels ?? [];
    $('trace-report').replaceChildren(
      card(report.found ? 'Found' : 'Not found', [
        ['Id', report.id],
        ['Time', report.time],
        ['Age', report.ageMs === null ? '' : duration(report.ageMs)],
        ['Searched', searched(report.search)],
        ['Unavailable servers', report.unavailable?.join(', ')],
        ['Note', report.note],
        ['May have been in', candidates.join(', ')],
        ['Breaks since', report.breaks.map(({ id, reason }) => `${id} ${reason}`).join(', ')],
        ['A client that resumes here gets',
          report.restart && !report.channels.length ? `a gap (${report.restart}), then live` : ''],
      ]),
      ...report.channels.map(channelCard),
    );
    showResult('trace-result', '', '');
  } catch (error) {
    showResult('trace-result', 'bad', error.message);
  }
}

const given = () => [$('trace-id').value.trim(), $('trace-channel').value.trim()];

export function setUpTrace() {
  $('trace-form').onsubmit = (event) => {
    event.preventDefault();
    const [id, channel] = given();
    const to = address('trace', { id, channel });
    if (location.hash === to) trace(id, channel);
    else location.hash = to;
  };
  $('trace-payloads').onchange = () => trace(...given());
}

export function openTrace(query) {
  const [id, channel] = [query.get('id') ?? '', query.get('channel') ?? ''];
  if (id !== $('trace-id').value) $('trace-payloads').checked = false;
  $('trace-id').value = id;
  $('trace-channel').value = channel;
  return trace(id, channel);
}
