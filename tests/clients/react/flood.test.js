// A thousand events per second: all arrive at that rate, and the page keeps drawing.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setUp } from './lib.js';

const RATE = 1000;
const SECONDS = 4;
const STEP = 20; // ms between two batches
/** Longest acceptable time between two frames, in ms. A responsive page needs about 20 ms. */
const LONG = 200;
/** Maximum share of the time in longer gaps, which other processes may cause. */
const MAX_SHARE = 0.25;
/** Minimum share of the rate at which events must arrive. */
const MIN_SHARE = 0.8;
/** Other processes may take the processor for seconds: then both are measured again. */
const ATTEMPTS = 3;

test(`page stays responsive at ${RATE} events per second`, async (t) => {
  const page = await setUp(t, { settings: { 'history.max_len': '10000' } });
  for (let attempt = 1; ; attempt += 1) {
    const faults = await flood(t, page);
    if (faults.length === 0) return;
    assert.ok(attempt < ATTEMPTS, faults.join('; '));
    await page.show(null);
    await page.connectionsAre(0);
  }
});

/** Sends events for some seconds. Resolves to what was too slow, if anything. */
async function flood(t, { client, tab, show, status, connectionsAre }) {
  await tab.evaluate(() => {
    Object.assign(window.seen, { events: [], batches: [], arrived: [], renders: 0 });
  });
  await show('Flood');
  await connectionsAre(1);
  await status('open');
  await tab.evaluate(() => {
    const gaps = window.gaps = [];
    let last = performance.now();
    const frame = (now) => { gaps.push(now - last); last = now; requestAnimationFrame(frame); };
    requestAnimationFrame(frame);
  });

  const total = RATE * SECONDS;
  const batch = RATE * STEP / 1000;
  const text = 'x'.repeat(100);
  const started = performance.now();
  const sent = [];
  for (let n = 0; n < total; n += batch) {
    const pipeline = client.pipeline();
    for (let i = n; i < n + batch; i += 1)
      pipeline.fcall('sse_publish', 1, 'user:42:events', 'order', JSON.stringify({ n: i, text }));
    sent.push(pipeline.exec());
    // Fixed rate: a late batch does not delay the next.
    const due = started + (n + batch) / RATE * 1000;
    await new Promise((resolve) => { setTimeout(resolve, Math.max(0, due - performance.now())); });
  }
  await Promise.all(sent);
  await tab.waitForFunction((total) => window.seen.events.length >= total, total);
  await tab.waitForFunction(
    (total) => document.querySelector('output').textContent === String(total),
    total,
  );

  const { events, gaps, renders, batches, took } = await tab.evaluate(() => {
    const { arrived } = window.seen;
    return { ...window.seen, gaps: window.gaps, took: arrived.at(-1) - arrived[0] };
  });
  const rate = total / took * 1000;
  assert.deepEqual(events, Array.from({ length: total }, (_, n) => n));
  const sorted = gaps.toSorted((a, b) => a - b);
  const [median, p99, worst] = [0.5, 0.99, 1].map((part) =>
    sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))].toFixed(1),
  );
  t.diagnostic(
    `${Math.round(rate)} events/s in the page; ${gaps.length} frames, gaps: ` +
      `median ${median} ms, 99 % ${p99} ms, worst ${worst} ms; ` +
      `${renders} renders, largest batch ${Math.max(...batches)}`,
  );
  assert.ok(
    batches.length <= gaps.length + 10,
    `${batches.length} batches in ${gaps.length} frames`,
  );
  // Strict mode renders twice.
  assert.ok(renders <= 2 * gaps.length + 10, `${renders} renders in ${gaps.length} frames`);
  const sum = (list) => list.reduce((all, gap) => all + gap, 0);
  const part = sum(gaps.filter((gap) => gap > LONG)) / sum(gaps);
  return [
    rate < MIN_SHARE * RATE && `${Math.round(rate)} events/s in the page`,
    part >= MAX_SHARE &&
      `${Math.round(100 * part)} % of the time in gaps of more than ${LONG} ms between frames`,
  ].filter(Boolean);
}
