// Records the demo page as an animated picture: node animation.js FILE.webp
import path from 'node:path';
import { chromium } from 'playwright-core';
import { freePort, kill, printed, run, start, temporaryFolder } from './lib/processes.js';
import { BINARY } from './lib/servers.js';

const VIEW = { width: 960, height: 640 };
/** Interval between two frames, in ms. */
const FRAME = 250;
/** Time, in ms, for which the last frame is shown. */
const LAST = 4000;

const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
const file = path.resolve(process.argv[2]);
const folder = temporaryFolder('animation');
const port = await freePort();
const demo = start(BINARY, ['dev', '--listen', `127.0.0.1:${port}`]);
const browser = await chromium.launch({
  executablePath: process.env.SSE_GATEWAY_CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--hide-scrollbars'],
});
const tab = await browser.newPage({ viewport: VIEW, deviceScaleFactor: 1.5 });

/** Takes frames until `stop` is called. Resolves to { name, at }. */
function record() {
  const frames = [];
  let running = true;
  const recording = (async () => {
    while (running) {
      const at = Date.now();
      const name = path.join(folder.path, `${frames.length}.png`);
      await tab.screenshot({ path: name, animations: 'disabled' });
      frames.push({ name, at });
      await sleep(Math.max(0, at + FRAME - Date.now()));
    }
    return frames;
  })();
  return () => { running = false; return recording; };
}

try {
  const [, command] = await printed(demo, ({ out }) => /^ +(redis-cli .* PUBLISH .*)$/m.exec(out),
    'a command');
  const publish = async (count) => {
    for (; count > 0; count -= 1) {
      await run('bash', ['-c', command]);
      await sleep(700);
    }
  };
  const press = (name) => tab.getByRole('button', { name, exact: true }).click();
  const reconnected = (text) => tab.locator('#resume-result', { hasText: text }).waitFor();

  await tab.goto(`http://127.0.0.1:${port}/`);
  await tab.waitForSelector('#state[data-state=open]');
  const stop = record();
  await publish(2);
  await press('Disconnect');
  await sleep(700);
  await publish(3);
  await press('Reconnect now');
  await reconnected('All 3 events');
  await sleep(2500);
  await press('Kill this gateway');
  await reconnected(/^Reconnected/);
  await sleep(2500);
  await press('Cause a gap');
  await reconnected('gap (trimmed)');
  await sleep(500);
  const frames = await stop();
  const shown = ({ at }, place) => frames[place + 1] ? frames[place + 1].at - at : LAST;
  const options = frames.flatMap((frame, place) => ['-d', `${shown(frame, place)}`, frame.name]);
  await run('img2webp', ['-loop', '0', '-min_size', '-lossless', ...options, '-o', file]);
  console.log(path.relative('.', file));
} finally {
  await browser.close();
  await kill(demo, 'SIGTERM');
  folder.remove();
}
