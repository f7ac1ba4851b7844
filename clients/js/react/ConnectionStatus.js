'use client';
import { createElement } from 'react';
import { useSse } from './useSse.js';

/** @import { Status } from './types.js' */

/** @type {Record<Status, string>} */
const TEXTS = {
  connecting: 'Connecting',
  open: 'Live',
  reconnecting: 'Reconnecting',
  polling: 'Live (polling)',
  'signed-out': 'Signed out',
  closed: 'Offline',
};

/**
 * Colours with a contrast of at least 3:1 on white and on black. A page overrides them with
 * `--connection-<status>`.
 * @type {Record<Status, string>}
 */
const COLORS = {
  connecting: '#b7791f',
  open: '#1a8f5f',
  reconnecting: '#b7791f',
  polling: '#2b7fc4',
  'signed-out': '#d0443a',
  closed: '#d0443a',
};

const DOT = {
  display: 'inline-block',
  width: '.55em',
  height: '.55em',
  borderRadius: '50%',
  marginInlineEnd: '.45em',
};

/**
 * Visible to screen readers only.
 * @type {import('react').CSSProperties}
 */
const HIDDEN = {
  position: 'absolute',
  width: 1,
  height: 1,
  overflow: 'hidden',
  clipPath: 'inset(50%)',
  whiteSpace: 'nowrap',
};

/**
 * Shows the state of a stream as text and colour. Changes are announced to screen readers. Style it
 * with `.connection-status`, `[data-state]` and the `--connection-*` colours.
 *
 * @example
 * <ConnectionStatus label="Orders" texts={{ open: 'Up to date' }} />
 *
 * @param {object} props
 * @param {Status} [props.status] `status` of useEventSource or useResilientRealtime. Default: that
 *   of the nearest `SseProvider`
 * @param {string} [props.label] prefix for screen readers: which connection this is
 * @param {Partial<Record<Status, string>>} [props.texts] replaces texts, for example to translate
 *   them
 * @param {string} [props.className] additional class names
 * @returns {import('react').ReactElement}
 */
export function ConnectionStatus({ status, ...props }) {
  return status
    ? createElement(StatusText, { ...props, status })
    : createElement(ProvidedStatus, props);
}

/** @param {Omit<Parameters<typeof StatusText>[0], 'status'>} props */
function ProvidedStatus(props) {
  return createElement(StatusText, { ...props, status: useSse().status });
}

/**
 * @param {object} props
 * @param {Status} props.status
 * @param {string} [props.label]
 * @param {Partial<Record<Status, string>>} [props.texts]
 * @param {string} [props.className]
 */
function StatusText({ status, label = 'Connection', texts, className }) {
  return createElement(
    'span',
    {
      role: 'status',
      'aria-live': 'polite',
      'aria-atomic': true,
      'data-state': status,
      className: ['connection-status', className].filter(Boolean).join(' '),
    },
    createElement('span', {
      'aria-hidden': true,
      style: { ...DOT, backgroundColor: `var(--connection-${status}, ${COLORS[status]})` },
    }),
    createElement('span', { style: HIDDEN }, `${label}: `),
    texts?.[status] ?? TEXTS[status],
  );
}
