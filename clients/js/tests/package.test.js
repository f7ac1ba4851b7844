// The package as its users get it: small, typed, and only what belongs to it.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const run = promisify(execFile);
const root = fileURLToPath(new URL('..', import.meta.url));
const tsc = `${root}node_modules/typescript/bin/tsc`;

/** Bytes of a bundle, minified and gzipped. */
async function size(entry, external = []) {
  const { outputFiles: [file] } = await build({
    entryPoints: [root + entry], bundle: true, minify: true, format: 'esm', target: 'es2022', write: false, external, logLevel: 'error',
  });
  return gzipSync(file.contents, { level: 9 }).length;
}

test('less than 4 KB, minified and gzipped', async (t) => {
  const core = await size('src/index.js', ['./share/member.js']);
  t.diagnostic(`core: ${core} bytes; the worker of shared tabs: ${await size('src/share/worker.js')} bytes`);
  assert.ok(core < 4096, `${core} bytes`);
});

test('no dependencies', async () => {
  const { default: manifest } = await import('../package.json', { with: { type: 'json' } });
  assert.deepEqual(manifest.dependencies ?? {}, {});
});

test('the types are sound, are built, and are those that users need', { timeout: 300_000 }, async () => {
  const fails = (error) => assert.fail(error.stdout);
  await run('npm', ['run', '--silent', 'build'], { cwd: root }).catch(fails);
  const [, snippet] = /^```ts\n([^]*?)^```$/m.exec(readFileSync(`${root}README.md`, 'utf8')) ?? assert.fail('no snippet in TypeScript');
  writeFileSync(`${root}tests/types/readme.ts`, snippet);
  await run(process.execPath, [tsc, '--project', 'tests/types/tsconfig.json'], { cwd: root }).catch(fails);
});

test('bundlers find what they look for: an entry also without `exports` (Parcel), the worker by the words they know', () => {
  const { main } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));
  assert.equal(main, './src/index.js');
  const member = readFileSync(`${root}src/share/member.js`, 'utf8');
  assert.match(member, /new SharedWorker\(new URL\('\.\/worker\.js', import\.meta\.url\), \{ type: 'module'/);
  // webpack takes a SharedWorker that was declared here for something else.
  assert.doesNotMatch(member, /\b(const|let|var) SharedWorker\b|[{,]\s*SharedWorker\s*[=,}]/);
});

test('the package holds the code, its types and its description, nothing else', { timeout: 300_000 }, async () => {
  const { stdout } = await run('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: root });
  const files = JSON.parse(stdout)[0].files.map(({ path }) => path);
  for (const needed of ['package.json', 'README.md', 'src/index.js', 'src/share/worker.js', 'types/src/index.d.ts']) assert.ok(files.includes(needed), needed);
  const strangers = files.filter((file) => !/^(package\.json|(react\/)?README\.md|(src|react)\/([a-z]+\/)?[\w-]+\.js|types\/(src|react)\/([a-z]+\/)?[\w-]+\.d\.ts)$/i.test(file));
  assert.deepEqual(strangers, []);
  assert.deepEqual(files.filter((file) => /\btests?\b/.test(file)), []);
});
