// The timeline: a lane for what was published, one for what was received, and the interruptions.
import { $ } from './dom.js';
import * as record from './record.js';

const SVG = 'http://www.w3.org/2000/svg';
const SPAN = 30_000; // shown by default, in ms
const MAX_SPAN = 600_000;
const AFTERWARDS = 30_000; // time for which an outage stays in view
const MARGIN = { left: 78, right: 14 };
const LABELS = [11, 25]; // rows of the labels of interruptions
const TOP = 48; // the lane of published events
const BOTTOM = 112; // the lane of received events
const HEIGHT = 154;
const CHARACTER = 7.5; // approximate width, in px
const BUCKET = 4; // events closer than this, in px, are drawn as one

const lanes = $('lanes');
const reducedMotion = window.matchMedia('(prefers-reduced-motion: reduce)');

function svg(name, className, attributes, text) {
  const node = document.createElementNS(SVG, name);
  if (className) node.setAttribute('class', className);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
const line = (className, x1, y1, x2, y2) => svg('line', className, { x1, y1, x2, y2 });

/** The span begins before the last outage, while that is of interest. */
function spanAt(now) {
  const outage = record.outages.at(-1);
  const recent = outage && (outage.to ?? now) > now - AFTERWARDS;
  return Math.min(MAX_SPAN, Math.max(SPAN, recent ? (now - outage.from) * 1.15 : 0));
}

function kindOf(event, missing) {
  if (missing.has(event)) return 'missing';
  if (!event.received) return 'pending';
  return record.isReplayed(event) ? 'replayed' : 'live';
}

/** Events with the same places and kind, as { kind, from, to, types: [] }. */
function buckets(x, start) {
  const missing = record.missing();
  const found = new Map();
  for (const event of record.all()) {
    const { published, received, type } = event;
    if (!(published >= start || received >= start)) continue;
    const kind = kindOf(event, missing);
    const [from, to] = [published, received].map((time) =>
      time === undefined ? undefined : Math.round(x(time) / BUCKET) * BUCKET,
    );
    const key = [kind, from, to].join();
    const bucket = found.get(key) ?? { kind, from, to, types: [] };
    bucket.types.push(type);
    found.set(key, bucket);
  }
  return [...found.values()];
}

function drawBucket({ kind, from, to, types }) {
  const group = svg('g', 'event-mark ' + kind, {});
  group.dataset.count = types.length;
  const names = [...new Set(types)].slice(0, 5).join(', ');
  group.append(svg('title', '', {}, types.length + ' ' + kind + ': ' + names));
  if (from !== undefined && to !== undefined) group.append(line('link', from, TOP, to, BOTTOM));
  const radius = types.length > 1 ? 6 : 4.5;
  if (kind === 'missing') {
    group.append(line('cross', from - 5, TOP - 5, from + 5, TOP + 5));
    group.append(line('cross', from - 5, TOP + 5, from + 5, TOP - 5));
  } else {
    for (const [cx, cy] of [[from, TOP], [to, BOTTOM]]) {
      if (cx !== undefined) group.append(svg('circle', 'dot', { cx, cy, r: radius }));
    }
  }
  return group;
}

function drawAxis(width, x, now, span) {
  const step = [5, 10, 30, 60, 120].find((step) => span / 1000 / step <= 7) ?? 120;
  const nodes = [];
  for (let seconds = 0; seconds * 1000 <= span; seconds += step) {
    const at = x(now - seconds * 1000);
    const text = seconds ? '−' + seconds + ' s' : 'now';
    const anchor = seconds ? 'middle' : 'end';
    nodes.push(svg('text', 'tick', { 'x': at, 'y': HEIGHT - 6, 'text-anchor': anchor }, text));
  }
  for (const [y, name] of [[TOP, 'published'], [BOTTOM, 'received']]) {
    nodes.push(svg('text', 'lane', { x: 0, y: y + 4 }, name));
    nodes.push(line('lane', MARGIN.left, y, width - MARGIN.right, y));
  }
  return nodes;
}

/** A label takes the second row if it would cover the one before. */
function drawOutages(outages, x, now) {
  let end = 0; // of the labels in the first row
  return outages.map(({ from, to, why }) => {
    const begin = Math.max(MARGIN.left, x(from));
    const width = Math.max(2, x(to ?? now) - begin);
    const length = why.length * CHARACTER;
    const at = Math.min(begin, lanes.clientWidth - length);
    const row = at < end ? 1 : 0;
    if (row === 0) end = at + length;
    const group = svg('g', 'outage', {});
    const y = TOP - 18;
    group.append(svg('rect', '', { x: begin, y, width, height: BOTTOM - y + 12 }));
    group.append(svg('text', '', { x: at, y: LABELS[row] }, why));
    return group;
  });
}

function drawGap({ at, reason }, x) {
  const group = svg('g', 'gap', {});
  const right = x(at) > lanes.clientWidth - 120;
  const text = { 'x': x(at) + (right ? -5 : 5), 'y': BOTTOM - 22 };
  group.append(line('', x(at), BOTTOM - 34, x(at), BOTTOM + 14));
  group.append(svg('text', '', { ...text, 'text-anchor': right ? 'end' : 'start' },
    'gap: ' + reason));
  return group;
}

function draw() {
  const width = lanes.clientWidth;
  if (!width) return;
  const now = Date.now();
  const span = spanAt(now);
  const start = now - span;
  const x = (time) =>
    MARGIN.left + (Math.max(time, start) - start) / span * (width - MARGIN.left - MARGIN.right);
  lanes.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
  const ofSpan = ({ to = now }) => to > start;
  lanes.replaceChildren(
    ...drawOutages(record.outages.filter(ofSpan), x, now),
    ...drawAxis(width, x, now, span),
    ...buckets(x, start).map(drawBucket),
    ...record.gaps.filter(({ at }) => at > start).map((gap) => drawGap(gap, x)),
  );
  summarise();
}

function summarise() {
  const { published, received } = record.counts;
  const missing = record.missing().size;
  $('published').textContent = published.toLocaleString('en');
  $('received').textContent = received.toLocaleString('en');
  const replayed = [...record.all()].filter(record.isReplayed).length;
  const parts = [
    published + ' published', received + ' received', replayed + ' replayed',
    ...(missing ? [missing + ' missing'] : []),
  ];
  $('timeline-text').textContent = parts.join(', ');
  lanes.setAttribute('aria-label', 'Timeline of events: ' + parts.join(', ') + ', ' +
    record.outages.length + ' interruptions, ' + record.gaps.length + ' gaps');
}

let frame = 0;
function schedule() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    draw();
  });
}

/** Draws the timeline from now on. */
export function setUpTimeline() {
  record.onChange(schedule);
  window.addEventListener('resize', schedule);
  let ticks = 0;
  setInterval(() => { if (!reducedMotion.matches || (ticks += 1) % 4 === 0) schedule(); }, 250);
  draw();
}
