// The guide for Next.js: a new app of create-next-app builds and runs with its steps, and its
// excerpts are those of examples/next.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { browser, page } from '../lib/browser.js';
import { folder, freePort, kill, printed, run, start } from '../lib/processes.js';
import { Gateway, Redis } from '../lib/servers.js';
import { NEXT } from './lib.js';

const HERE = import.meta.dirname;
const ROOT = path.resolve(HERE, '../../..');
const CREATE = path.resolve(HERE, '../node_modules/create-next-app');
const guide = readFileSync(path.join(ROOT, 'docs/guides/nextjs.md'), 'utf8');

/** The code blocks of a section: [language, code, the paragraph before it]. */
function blocks(heading) {
  const section = guide.split(/^## /m).find((text) => text.startsWith(`${heading}\n`));
  return [...section.matchAll(/([^\n]+)\n\n```(\w+)\n([^]*?)^```$/gm)]
    .map(([, before, language, code]) => ({ before, language, code }));
}

const versions = (file) => JSON.parse(readFileSync(file, 'utf8'));

test('guide and example use the version of create-next-app', () => {
  const { version } = versions(path.join(CREATE, 'package.json'));
  assert.ok(guide.includes(`npx create-next-app@${version} `));
  assert.equal(versions(path.join(NEXT, 'package.json')).dependencies.next, version);
});

test('excerpts of the guide are those of the example', () => {
  const link = /\]\(\.\.\/\.\.\/examples\/next\/([^)]+)\)[^\n]*\n\n```tsx?\n([^]*?)^```$/gm;
  const excerpts = [...guide.matchAll(link)];
  assert.equal(excerpts.length, 9);
  const lines = (text) => text.split('\n').map((line) => line.trim()).join('\n').trim();
  for (const [, file, code] of excerpts) {
    const whole = readFileSync(path.join(NEXT, file), 'utf8');
    assert.ok(lines(whole).includes(lines(code)), `not in ${file}:\n${code}`);
  }
});

/** Runs a command that may take minutes on a busy machine. */
async function finish(command, args, options) {
  const child = start(command, args, options);
  const { code } = await child.exited;
  assert.equal(code, 0, child.out + child.err);
}

/** Runs the commands of the guide in a folder with the two packages. */
async function createApp(parent, services) {
  for (const name of ['clients/js', 'servers/node'])
    await finish('npm', ['pack', '--silent', '--pack-destination', parent], {
      cwd: path.join(ROOT, name),
      // What `prepack` generates is there, because examples/next has it, too.
      env: { ...process.env, npm_config_ignore_scripts: 'true' },
    });
  const [, commands] = blocks('Create the app').map(({ code }) => code);
  const [create, ...rest] = services(commands).split('\n');
  // The packages of the example, so that npm has little to install.
  const copied = `cp -al ${NEXT}/node_modules my-app/ && rm my-app/node_modules/.package-lock.json`;
  const script = [
    create.replace(/^npx create-next-app@\S+/, `node ${CREATE}/dist/index.js --skip-install`),
    copied,
    ...rest,
  ].join('\n');
  await finish('bash', ['-ec', script], {
    cwd: parent,
    env: { ...process.env, npm_config_prefer_offline: 'true', npm_config_audit: 'false' },
  });
  for (const { before, code } of blocks('Add the files')) {
    const [, name] = /`([\w./-]+)`/.exec(before);
    const file = path.join(parent, 'my-app', name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, code);
  }
  return path.join(parent, 'my-app');
}

/**
 * Responses for the fonts of create-next-app's layout: Next.js' own tests use this variable in
 * place of Google, which CI cannot reach.
 */
function fonts(parent) {
  const css = ['Geist', 'Geist+Mono'].map((name) =>
    [`https://fonts.googleapis.com/css2?family=${name}:wght@100..900&display=swap`, '']);
  const file = path.join(parent, 'fonts.json');
  writeFileSync(file, JSON.stringify(Object.fromEntries(css)));
  return file;
}

test('new app with the steps of the guide builds and runs', async (t) => {
  const [port, redis, temporary] = [await freePort(), await Redis.start(t), folder(t, 'guide')];
  const url = `http://localhost:${port}`;
  const secretFile = path.join(temporary, 'ticket-secret');
  writeFileSync(secretFile, randomBytes(32).toString('hex'));
  const gateway = await Gateway.start(t, {
    redis,
    settings: {
      'tickets.secret': readFileSync(secretFile, 'utf8'),
      'cors.allowed_origins': url,
    },
  });
  const services = (text) => text
    .replaceAll('/tmp/', `${temporary}/`)
    .replaceAll('redis://127.0.0.1:6379', redis.url)
    .replaceAll('redis-cli ', `redis-cli -p ${redis.port} `)
    .replaceAll('http://127.0.0.1:8080', gateway.url);

  // On the file system of the example, whose packages are linked. Not below it: the app must not
  // find them in a parent folder.
  const parent = path.join(ROOT, '.cache/next-guide');
  rmSync(parent, { recursive: true, force: true });
  mkdirSync(parent, { recursive: true });
  t.after(() => rmSync(parent, { recursive: true, force: true }));
  const app = await createApp(parent, services);

  const { PATH, HOME } = process.env;
  const env = {
    PATH, HOME, PORT: `${port}`, NEXT_TELEMETRY_DISABLED: '1',
    NEXT_FONT_GOOGLE_MOCKED_RESPONSES: fonts(temporary),
  };
  const [{ code: commands }, { code: publish }] = blocks('Run it');
  const [build, serve] = commands.trim().split('\n');
  await finish('bash', ['-c', build], { cwd: app, env });
  const site = start('bash', ['-c', `exec ${serve}`], { cwd: app, env, detached: true });
  t.after(async () => {
    process.kill(-site.pid, 'SIGKILL');
    await site.exited;
  });
  await printed(site, ({ out }) => out.includes('Ready in'), 'that it is ready');

  const tab = await page(t, await browser(t), url);
  await tab.locator('.connection-status[data-state=open]').waitFor();
  await tab.getByRole('button', { name: 'Notify me' }).click();
  await tab.getByRole('button', { name: '1 new notifications' }).waitFor();
  await run('bash', ['-ec', services(publish)]);
  await tab.getByRole('button', { name: '2 new notifications' }).waitFor();
  assert.deepEqual(tab.consoleErrors, []);
});
