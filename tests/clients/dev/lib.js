// Starts `sse-gateway dev`, and reads its page.
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { browser, page } from '../lib/browser.js';
import { folder, freePort, printed, run, start, until } from '../lib/processes.js';
import { BINARY } from '../lib/servers.js';

/**
 * Starts `dev` like a terminal: in its own process group, with its own working and temporary
 * directory.
 */
export async function dev(t, settings = {}, port) {
  port ??= await freePort();
  const home = folder(t, 'dev');
  const [work, temporary] = [path.join(home, 'work'), path.join(home, 'tmp')];
  for (const directory of [work, temporary]) mkdirSync(directory);
  const env = { PATH: process.env.PATH, HOME: home, TMPDIR: temporary, ...settings };
  const child = start(BINARY, ['dev', '--listen', `127.0.0.1:${port}`], {
    detached: true,
    cwd: work,
    env,
  });
  t.after(async () => {
    try { process.kill(-child.pid, 'SIGKILL'); } catch { /* it has exited */ }
    await child.exited;
  });
  const lines = ({ out }, start) =>
    out
      .split('\n')
      .slice(0, -1)
      .map((line) => line.trim())
      .filter((line) => line.startsWith(start));
  const [listen] = await printed(
    child,
    (child) => lines(child, 'curl -N ').length && lines(child, 'curl -N '),
    'a curl -N line',
  );
  const publish = await printed(
    child,
    (child) => lines(child, 'redis-cli ').length && lines(child, 'redis-cli '),
    'a redis-cli line',
  );
  const url = `http://127.0.0.1:${port}/`;
  await until(
    async () => {
      try {
        return (await fetch(url)).ok;
      } catch {
        return false;
      }
    },
    () => `no page:\n${child.out}${child.err}`,
  );
  return { child, port, url, publish, listen, home, work, temporary };
}

/** The addresses of the metrics of both gateways. */
export const metrics = (child) => [...child.out.matchAll(/http:\S+\/metrics/g)].map(String);

/** Runs a printed command in a shell, and kills it with all its children at the end of the test. */
export function paste(t, line) {
  const shell = start('bash', ['-c', line], { detached: true });
  t.after(async () => {
    try { process.kill(-shell.pid, 'SIGKILL'); } catch { /* it has exited */ }
    await shell.exited;
  });
  return shell;
}

/** Runs printed commands, one after the other. */
export async function pasteAll(lines) {
  for (const line of lines) await run('bash', ['-c', line]);
}

/** Opens the page of a new `dev`, and waits for its stream. */
export async function demo(t, settings, look) {
  const running = await dev(t, settings);
  const tab = await page(t, await browser(t), running.url, look);
  await tab.waitForSelector('#state[data-state=open]');
  return { ...running, tab };
}

/** Waits until the page shows this text, or text that matches. */
export async function shows(tab, selector, expected) {
  try {
    await tab.waitForFunction(
      ([selector, source]) =>
        new RegExp(source).test(document.querySelector(selector)?.textContent ?? ''),
      [selector, expected instanceof RegExp ? expected.source : `^${expected}$`],
    );
  } catch (error) {
    const shown = await tab.locator(selector).allTextContents().catch(() => 'nothing');
    throw new Error(`${selector} shows [${shown}], not ${expected}`, { cause: error });
  }
}

/** Number of events of a kind in the timeline: live, replayed, missing or pending. */
export const marked = (tab, kind) =>
  tab
    .locator(`#lanes .event-mark.${kind}`)
    .evaluateAll((marks) => marks.reduce((sum, { dataset }) => sum + Number(dataset.count), 0));

/** Waits until the page shows this number of events. */
export const rows = (tab, count) =>
  tab.waitForFunction(
    (count) => document.querySelectorAll('.event:not(.system)').length === count,
    count,
  );
