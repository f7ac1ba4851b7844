import { createElement } from 'react';

/** @import { Status } from './types.js' */

/** @type {Record<Status, string>} */
const TEXTS = { connecting: 'Connecting', open: 'Live', reconnecting: 'Reconnecting', polling: 'Live (polling)', closed: 'Offline' };

/** Colours that can be seen on white and on black (3:1 and more). A page sets its own in `--connection-<status>`.
 * @type {Record<Status, string>} */
const COLORS = { connecting: '#b7791f', open: '#1a8f5f', reconnecting: '#b7791f', polling: '#2b7fc4', closed: '#d0443a' };

const DOT = { display: 'inline-block', width: '.55em', height: '.55em', borderRadius: '50%', marginInlineEnd: '.45em' };

/** Not to be seen, but read out.
 * @type {import('react').CSSProperties} */
const HIDDEN = { position: 'absolute', width: 1, height: 1, overflow: 'hidden', clipPath: 'inset(50%)', whiteSpace: 'nowrap' };

/**
 * The state of a stream, as text and colour; a screen reader is told when it changes.
 * Styled by `.connection-status`, `[data-state]`, and the `--connection-*` colours.
 * @param {object} props
 * @param {Status} props.status of useEventSource or useResilientRealtime
 * @param {string} [props.label] what stands before the state, for screen readers only: whose connection it is
 * @param {Partial<Record<Status, string>>} [props.texts] other words, or another language
 * @param {string} [props.className]
 * @returns {import('react').ReactElement}
 */
export function ConnectionStatus({ status, label = 'Connection', texts, className }) {
  return createElement(
    'span',
    { role: 'status', 'aria-live': 'polite', 'aria-atomic': true, 'data-state': status, className: ['connection-status', className].filter(Boolean).join(' ') },
    createElement('span', { 'aria-hidden': true, style: { ...DOT, backgroundColor: `var(--connection-${status}, ${COLORS[status]})` } }),
    createElement('span', { style: HIDDEN }, `${label}: `),
    texts?.[status] ?? TEXTS[status],
  );
}
