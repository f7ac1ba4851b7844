// A thousand events a second: all arrive, and the page goes on drawing.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stand } from './lib.js';

const RATE = 1000;
const SECONDS = 4;
const STEP = 20; // ms between two portions
/** Far above what a page that keeps up shows (some 20 ms), far below what a frozen one does. */
const FROZEN = 500;

test(`${RATE} events a second for ${SECONDS} s do not freeze the page, and none is missing`, async (t) => {
  const { client, tab, show, connectionsAre } = await stand(t, { settings: { 'history.max_len': '10000' } });
  await tab.evaluate(() => { window.seen.batches = []; });
  await show('Flood');
  await connectionsAre(1);
  await tab.evaluate(() => {
    const gaps = window.gaps = [];
    let last = performance.now();
    const frame = (now) => { gaps.push(now - last); last = now; requestAnimationFrame(frame); };
    requestAnimationFrame(frame);
  });

  const total = RATE * SECONDS;
  const portion = RATE * STEP / 1000;
  const text = 'x'.repeat(100);
  const started = performance.now();
  for (let n = 0; n < total; n += portion) {
    const pipeline = client.pipeline();
    for (let i = n; i < n + portion; i += 1) pipeline.fcall('sse_publish', 1, 'user:42:events', 'order', JSON.stringify({ n: i, text }));
    await pipeline.exec();
    // The rate is what is given here, not what is measured: waits until the next portion is due.
    const due = started + (n + portion) / RATE * 1000;
    await new Promise((resolve) => { setTimeout(resolve, Math.max(0, due - performance.now())); });
  }
  const took = performance.now() - started;
  await tab.waitForFunction((total) => window.seen.events.length >= total, total);
  await tab.waitForFunction((total) => document.querySelector('output').textContent === String(total), total);

  const { events, gaps, renders, batches } = await tab.evaluate(() => ({ ...window.seen, gaps: window.gaps }));
  assert.deepEqual(events, Array.from({ length: total }, (_, n) => n));
  const sorted = gaps.toSorted((a, b) => a - b);
  const [median, p99, worst] = [0.5, 0.99, 1].map((part) => sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))].toFixed(1));
  t.diagnostic(`${Math.round(total / took * 1000)} events/s; ${gaps.length} frames, gaps: median ${median} ms, 99 % ${p99} ms, worst ${worst} ms; `
    + `${renders} renders, largest batch ${Math.max(...batches)}`);
  assert.ok(Number(worst) < FROZEN, `no frame for ${worst} ms`);
  assert.ok(batches.length <= gaps.length + 10, `${batches.length} batches in ${gaps.length} frames`);
  // Strict mode renders twice.
  assert.ok(renders <= 2 * gaps.length + 10, `${renders} renders in ${gaps.length} frames`);
});
