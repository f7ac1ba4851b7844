'use client';
import { createElement as h, useState } from 'react';
import { useProvided } from './context.js';
import { COLORS, DOTS, STYLE } from './devtools/style.js';
import { useRecords } from './devtools/useRecords.js';
import { useSse } from './useSse.js';

/** @import { ReactElement } from 'react' */
/** @import { Record } from './devtools/useRecords.js' */

/**
 * A panel for development, below an `SseProvider`: state, user, topics, ids, and the latest events,
 * gaps and errors of the stream. Leave it out of production builds:
 *
 * @example
 * {process.env.NODE_ENV === 'development' && <SseDevtools />}
 *
 * @param {object} props
 * @param {boolean} [props.initialIsOpen] whether the panel is open at first. Default: false
 * @param {'left' | 'right'} [props.position] corner of the button. Default: `right`
 * @param {number} [props.limit] maximum number of events to keep. Default: 200
 * @returns {ReactElement}
 */
export function SseDevtools({ initialIsOpen = false, position = 'right', limit = 200 }) {
  const { live } = useProvided('SseDevtools');
  const recorded = useRecords(live, limit);
  const [isOpen, setIsOpen] = useState(initialIsOpen);
  const { status } = useSse();
  const toggle = h(
    'button',
    {
      type: 'button',
      'aria-expanded': isOpen,
      onClick: () => setIsOpen(!isOpen),
      style: { ...STYLE.toggle, [position]: 12 },
    },
    h('span', { 'aria-hidden': true, style: { color: DOTS[status] } }, '● '),
    `SSE ${status}`,
  );
  return h('div', null, isOpen && h(Panel, recorded), toggle);
}

/** @param {ReturnType<typeof useRecords>} props */
function Panel({ records, gaps, connected, clear }) {
  const [filter, setFilter] = useState('');
  const [showsHeartbeats, setShowsHeartbeats] = useState(false);
  const { reconnect, close } = useSse();
  const shown = records.filter(({ type }) =>
    type.includes(filter) && (showsHeartbeats || type !== 'sse.heartbeat'));
  return h(
    'section',
    { 'aria-label': 'SSE devtools', style: STYLE.panel },
    h(
      'div',
      { style: STYLE.bar },
      button('Reconnect', reconnect),
      button('Close', close),
      button('Clear', clear),
      h('input', {
        'aria-label': 'Filter by name',
        placeholder: 'Filter by name',
        value: filter,
        onChange: (/** @type {{ target: { value: string } }} */ { target }) =>
          setFilter(target.value),
        style: { ...STYLE.button, cursor: 'text' },
      }),
      h(
        'label',
        null,
        h('input', {
          type: 'checkbox',
          checked: showsHeartbeats,
          onChange: () => setShowsHeartbeats(!showsHeartbeats),
        }),
        ' heartbeats',
      ),
    ),
    h(Facts, { gaps, connected }),
    h(
      'ol',
      { tabIndex: 0, 'aria-label': 'Events, newest first', style: STYLE.list },
      shown.map((record) => h(Row, { key: record.n, record })),
    ),
  );
}

/** @param {string} text @param {() => void} onClick */
const button = (text, onClick) =>
  h('button', { type: 'button', onClick, style: STYLE.button }, text);

/** @param {{ gaps: number, connected?: string }} props */
function Facts({ gaps, connected }) {
  const { url } = useProvided('SseDevtools');
  const { status, reconnectCount, lastEventId } = useSse();
  const { user, topics, connectionId } = connected ? JSON.parse(connected) : {};
  const facts = {
    state: status,
    transport: status === 'polling' ? 'polling' : 'SSE',
    url,
    user,
    topics: topics?.join(', '),
    connection: connectionId,
    'last id': lastEventId,
    reconnects: reconnectCount,
    gaps,
  };
  return h(
    'dl',
    { style: STYLE.facts },
    Object.entries(facts).map(([name, value]) => h(
      'div',
      { key: name, style: STYLE.fact },
      h('dt', { style: STYLE.name }, name),
      h('dd', { style: STYLE.value }, String(value ?? '–')),
    )),
  );
}

/** @param {{ record: Record }} props */
function Row({ record: { time, kind, type, id, text, retained } }) {
  return h(
    'li',
    { style: STYLE.row },
    h(
      'details',
      null,
      h(
        'summary',
        { style: STYLE.summary },
        h('time', { dateTime: time.toISOString(), style: STYLE.name }, clock(time)),
        ' ',
        h('strong', { style: { color: COLORS[kind] } }, type),
        retained && h('span', { style: STYLE.name }, ' retained'),
        ` ${text}`,
      ),
      h('pre', { style: STYLE.data }, id && `id: ${id}\n`, indented(text)),
    ),
  );
}

/** @param {Date} time */
const clock = (time) => {
  const text = time.toLocaleTimeString('en-GB');
  return `${text}.${String(time.getMilliseconds()).padStart(3, '0')}`;
};

/** @param {string} text */
function indented(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}
