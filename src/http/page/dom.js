// DOM and text helpers, and notices above the page.

export const $ = (id) => document.getElementById(id);

export function element(name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}
/** Shows the result of an action. `kind`: ok, bad or empty. */
export function showResult(id, kind, text) {
  $(id).className = 'result ' + kind;
  $(id).textContent = text;
}
/** Parses JSON; null if it is invalid. */
export function parse(text) { try { return JSON.parse(text); } catch { return null; } }
/**
 * Indents JSON, if that changes nothing but white space: numbers that a browser cannot represent
 * and duplicate keys must stay visible.
 */
export function pretty(text) {
  if (text.length > 20000 || !/^\s*[[{]/.test(text)) return text;
  const value = parse(text);
  if (value === null) return text;
  const compact = (json) => json.replace(/\s+/g, '');
  const indented = JSON.stringify(value, null, 2);
  return compact(indented) === compact(text) && indented.length > 60 ? indented : text;
}
/** Formats a Date as HH:MM:SS.mmm in local time. */
export function clock(time) {
  const pad = (part, width = 2) => String(part).padStart(width, '0');
  const parts = [time.getHours(), time.getMinutes(), time.getSeconds()];
  return parts.map((part) => pad(part)).join(':') + '.' + pad(time.getMilliseconds(), 3);
}

const notices = new Map();
/** Shows a notice, replacing the previous one with the same key. */
export function showNotice(key, kind, text, label, action) {
  dismissNotice(key);
  const box = element('div', 'notice ' + kind);
  box.dataset.notice = key;
  box.append(element('span', '', text));
  if (label) {
    const button = element('button', 'small', label);
    button.type = 'button';
    button.onclick = action;
    box.append(button);
  }
  notices.set(key, box);
  $('notices').append(box);
}
export function dismissNotice(key) {
  const box = notices.get(key);
  if (box) box.remove();
  notices.delete(key);
}
