// The chart of events per second.
import { $ } from './dom.js';

const SECONDS = 60; // width of the chart
let total = 0;
const buckets = new Array(SECONDS).fill(0);

function chart() {
  const canvas = $('rate');
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width) return;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext('2d');
  pen.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const peak = Math.max(...buckets);
  const top = niceTop(peak);
  const foot = 16, floor = height - foot, right = 34, span = width - right;
  pen.font = '11px ' + (color('--mono') || 'monospace');
  pen.textBaseline = 'middle';
  for (const part of [0, 0.5, 1]) {
    const y = Math.round(floor - part * (floor - 8)) + 0.5;
    pen.strokeStyle = color('--line');
    pen.beginPath(); pen.moveTo(0, y); pen.lineTo(span, y); pen.stroke();
    if ((part * top) % 1 === 0) {
      pen.fillStyle = color('--soft');
      pen.textAlign = 'left';
      pen.fillText(short(part * top), span + 6, y);
    }
  }
  const step = span / SECONDS;
  pen.fillStyle = color('--accent');
  buckets.forEach((count, place) => {
    if (!count) return;
    const tall = Math.max(2, count / top * (floor - 8));
    pen.beginPath();
    pen.roundRect(place * step + 1, floor - tall, Math.max(1, step - 2), tall, [2, 2, 0, 0]);
    pen.fill();
  });
  pen.fillStyle = color('--soft');
  pen.textAlign = 'left'; pen.fillText('60 s ago', 0, height - 6);
  pen.textAlign = 'right'; pen.fillText('now', span, height - 6);
  const now = buckets[SECONDS - 2];
  $('rate-text').textContent = now + '/s now, peak ' + peak + '/s';
  canvas.setAttribute(
    'aria-label',
    'Events per second over the last 60 seconds: now ' + now + ', peak ' + peak,
  );
}
function niceTop(peak) {
  for (let unit = 1; ; unit *= 10)
    for (const factor of [2, 4, 10]) if (peak <= factor * unit) return factor * unit;
}
function short(count) { return count >= 1000 ? count / 1000 + 'k' : String(count); }

// Based on the clock: a suspended tab shifts by the number of seconds that have passed.
let second = Math.floor(Date.now() / 1000);
setInterval(() => {
  const now = Math.floor(Date.now() / 1000);
  for (let passed = Math.min(now - second, SECONDS); passed > 0; passed -= 1) {
    buckets.shift();
    buckets.push(0);
  }
  second = Math.max(second, now);
  chart();
}, 250);
window.addEventListener('resize', chart);
window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', chart);
chart();

export function countEvent() {
  total += 1;
  buckets[SECONDS - 1] += 1;
}
export const totalEvents = () => total;
/** Number of events in the current second. */
export const currentCount = () => buckets[SECONDS - 1];
