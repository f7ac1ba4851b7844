// Numbers, sizes and times as text, and the elements that several views use.
import { element } from './dom.js';

const whole = new Intl.NumberFormat('en');
export const count = (value) => whole.format(value);

/** A rate per second. */
export const rate = (value) =>
  value >= 10 || value === 0 ? count(Math.round(value)) : value.toFixed(1);

export function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit += 1) value /= 1024;
  return (unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)) + ' ' + units[unit];
}

/** A duration in ms. */
export function duration(ms) {
  if (ms < 1000) return Math.round(ms) + ' ms';
  const seconds = Math.floor(ms / 1000);
  const [days, hours] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24];
  const [minutes, rest] = [Math.floor(seconds / 60) % 60, seconds % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${rest} s` : `${rest} s`;
}

/** A latency in seconds. */
export const latency = (seconds) =>
  seconds === null ? '–' : seconds < 1
    ? (seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0) + ' ms' : seconds.toFixed(1) + ' s';

/** The time that an event id contains, in UTC; empty if it contains none. */
export function timeOfId(id) {
  const ms = Number(/^(\d+)-/.exec(id ?? '')?.[1]);
  const time = new Date(ms);
  return Number.isNaN(time.valueOf()) || ms > 8.6e15 ? '' : time.toISOString();
}

/** Replaces the pairs of a description list: [name, text, class]. Empty texts are left out. */
export function showPairs(list, pairs) {
  const rows = pairs.filter(([, text]) => text !== '' && text !== null && text !== undefined);
  list.replaceChildren(...rows.map(([name, text, className]) => {
    const row = element('div', className);
    row.append(element('dt', '', name), element('dd', '', String(text)));
    return row;
  }));
}

/** A row of a list: a name, or an element, and facts. */
export function listRow(name, facts) {
  const row = element('li');
  row.append(typeof name === 'string' ? element('span', 'name mono', name) : name);
  for (const fact of facts) {
    if (fact) row.append(typeof fact === 'string' ? element('span', 'fact', fact) : fact);
  }
  return row;
}

/** A list without entries. */
export const none = (text) => element('li', 'none', text);

/** A link to another view of the page. */
export function viewLink(view, query, text) {
  const link = element('a', 'name mono', text);
  link.href = address(view, query);
  return link;
}
export const address = (view, query) => '#' + view + '?' + new URLSearchParams(query);

/** A payload as the API returns it, or nothing. */
export function payload({ data, truncated, bytes: size }) {
  if (typeof data !== 'string') return null;
  const shown = element('pre', '', data);
  shown.tabIndex = 0;
  shown.setAttribute('aria-label', 'Payload');
  if (truncated) shown.append(`\n… (the first part of ${count(size)} bytes)`);
  return shown;
}
