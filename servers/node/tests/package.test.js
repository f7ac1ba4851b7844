// The packed package in an empty project, with every example of its README.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import {
  folder, freePort, kill, printed, start, until,
} from '../../../tests/clients/lib/processes.js';
import { env, open } from './lib.js';

const execute = promisify(execFile);
const run = async (command, args, cwd) => {
  const { stdout } = await execute(command, args, { cwd }).catch((error) =>
    assert.fail(`${command}: ${error.stdout}${error.stderr}`));
  return stdout;
};
const root = fileURLToPath(new URL('..', import.meta.url));
const ID = /\d+-\d+\.[0-9a-z]+/;

/** Packs the package, which is built already, and installs it in an empty project with clients. */
async function installed(t) {
  const application = folder(t, 'package');
  await run('npm', ['pack', '--ignore-scripts', '--pack-destination', application], root);
  // Without packing, and with the clients from here.
  const commands = block('sh', 'npm install')
    .replace(/^.* npm pack\)\n/, '')
    .replace('/path/to/sse-gateway/servers/node/', './')
    .replace(' ioredis', ' --offline --no-audit --no-fund');
  await run('bash', ['-ec', commands], application);
  const modules = path.join(application, 'node_modules');
  for (const name of readdirSync(`${root}node_modules`).filter((name) => !name.startsWith('.'))) {
    const target = path.join(root, 'node_modules', name);
    symlinkSync(target, path.join(modules, name));
  }
  return application;
}

/** All blocks of the README: [language, code]. */
function blocks() {
  const text = readFileSync(path.join(root, 'README.md'), 'utf8');
  return [...text.matchAll(/^```(\w+)\n([^]*?)^```$/gm)].map((match) => match.slice(1));
}

/** The only block in a language that contains a text. */
function block(language, text) {
  const found = blocks().filter(([other, code]) => other === language && code.includes(text));
  assert.equal(found.length, 1, `README.md must have one ${language} block with ${text}`);
  return found[0][1];
}

test('the README runs in an empty project', async (t) => {
  const application = await installed(t);
  const files = readdirSync(path.join(application, 'node_modules/@sse-gateway/backend'));
  assert.deepEqual(files.sort(), ['LICENSE', 'README.md', 'dist', 'package.json']);
  const used = new Set([block('sh', 'npm install')]);
  const port = await freePort();
  const local = (code) => code
    .replace('redis://127.0.0.1:6379', env.SSE_TEST_REDIS)
    .replace('port: 7000', `port: ${env.SSE_TEST_CLUSTER.split(',')[0].split(':')[1]}`)
    .replace("unseen: '30s'", "unseen: '1s'")
    .replace('listen(3000)', `listen(${port})`);
  const first = block('js', 'import Redis');
  let programs = 0;
  /** Runs the first example followed by another one. */
  const example = (text, end = 'process.exit(0);') => {
    const code = text ? block('js', text) : '';
    used.add(text ? code : first);
    const file = path.join(application, `program${programs++}.js`);
    writeFileSync(file, local(`${first}${code}${end}`));
    const child = start(process.execPath, [file], { cwd: application });
    t.after(() => kill(child));
    return child;
  };
  const output = async (child) => {
    const { code } = await child.exited;
    assert.equal(code, 0, child.err);
    return child.out;
  };

  const [ticket, id] = (await output(example())).trim().split(' ');
  assert.match(id, ID);
  const stream = await open(t, env.SSE_TEST_GATEWAY, ticket);
  assert.deepEqual(stream.connected.topics, ['news', 'team-*']);

  example('createServer', '');
  const post = () => fetch(`http://127.0.0.1:${port}`, { method: 'POST' }).catch(() => null);
  const response = await until(post, 'the server of the README does not respond');
  const second = await open(t, env.SSE_TEST_GATEWAY, (await response.json()).ticket);
  assert.deepEqual(second.connected.topics, ['news']);

  // Nothing may see the event that becomes undelivered.
  stream.close();
  second.close();

  await output(example('unseen:'));
  assert.match(await output(example('error.retriable')), /^too-large false$/m);
  await output(example('new Cluster'));

  const worker = example('sse.undelivered', '');
  await printed(worker, ({ out }) => /^email user:42:events shipped/m.test(out), 'the event');

  const typed = blocks().filter(([language]) => language === 'ts').map(([, code]) => code);
  mkdirSync(path.join(application, 'types'));
  typed.forEach((code, n) => {
    used.add(code);
    writeFileSync(path.join(application, `types/readme${n}.ts`), local(code));
  });
  writeFileSync(path.join(application, 'types/uses.ts'), readFileSync(`${root}tests/uses.ts`));
  const tsc = path.join(root, 'node_modules/typescript/bin/tsc');
  await run(process.execPath, [
    tsc, '--strict', '--exactOptionalPropertyTypes', '--target', 'es2022', '--module', 'nodenext',
    '--outDir', 'types', '--types', 'node', '--skipLibCheck', 'true',
    ...readdirSync(path.join(application, 'types')).map((name) => `types/${name}`),
  ], application);
  for (const n of typed.keys()) {
    const code = readFileSync(path.join(application, `types/readme${n}.js`), 'utf8');
    writeFileSync(path.join(application, 'typed.js'), `${code}process.exit(0);`);
    assert.match(await run(process.execPath, ['typed.js'], application), ID);
  }

  const unused = blocks().filter(([, code]) => !used.has(code));
  assert.deepEqual(unused, [], 'these blocks are not run');
});
