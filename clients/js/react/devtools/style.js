// A theme of its own, so that the page's styles do not matter. Text has a contrast of 4.5:1.

/** @typedef {import('react').CSSProperties} Style */

const FONT = '12px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace';

/** @type {Style} */
const BUTTON = {
  font: FONT,
  color: '#e6e9ef',
  background: '#2b3140',
  border: '1px solid #5b6478',
  borderRadius: 6,
  padding: '2px 10px',
  cursor: 'pointer',
};

/** @type {Record<string, Style>} */
export const STYLE = {
  button: BUTTON,
  toggle: {
    ...BUTTON, position: 'fixed', bottom: 12, zIndex: 99_999, padding: '4px 12px',
  },
  panel: {
    position: 'fixed',
    bottom: 0,
    left: 0,
    right: 0,
    height: 'min(45vh, 28rem)',
    zIndex: 99_998,
    display: 'flex',
    flexDirection: 'column',
    font: FONT,
    color: '#e6e9ef',
    background: '#171a21',
    borderTop: '1px solid #5b6478',
    textAlign: 'start',
  },
  bar: {
    display: 'flex', flexWrap: 'wrap', gap: 8, alignItems: 'center', padding: '8px 12px',
  },
  facts: {
    display: 'flex', flexWrap: 'wrap', gap: '0 16px', margin: 0, padding: '0 12px 8px',
    overflowWrap: 'anywhere',
  },
  fact: { display: 'flex', gap: 6 },
  name: { color: '#a9b3c6' },
  value: { margin: 0 },
  list: {
    flex: 1, overflow: 'auto', margin: 0, padding: '0 12px 48px', listStyle: 'none',
    borderTop: '1px solid #2b3140',
  },
  row: { padding: '2px 0', borderBottom: '1px solid #2b3140' },
  summary: {
    cursor: 'pointer', whiteSpace: 'nowrap', overflow: 'hidden', textOverflow: 'ellipsis',
  },
  data: { margin: '4px 0 8px 16px', whiteSpace: 'pre-wrap', overflowWrap: 'anywhere' },
};

/** Colour of a record by its kind. */
export const COLORS = { event: '#7fd1ae', system: '#a9b3c6', gap: '#f2c572', error: '#ff9c94' };

/** Colour of the dot by state. */
export const DOTS = {
  connecting: '#f2c572',
  open: '#7fd1ae',
  reconnecting: '#f2c572',
  polling: '#8ab8ff',
  'signed-out': '#ff9c94',
  closed: '#ff9c94',
};
