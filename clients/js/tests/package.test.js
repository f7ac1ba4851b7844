// The published package: size, types, and contents.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import ts from 'typescript';

const run = promisify(execFile);
const root = fileURLToPath(new URL('..', import.meta.url));
const failWithOutput = (error) => assert.fail(error.stdout || error.stderr);

/** Size of a bundle in bytes, minified and gzipped. */
async function size(entry, external = []) {
  const {
    outputFiles: [file],
  } = await build({
    entryPoints: [root + entry],
    bundle: true,
    minify: true,
    format: 'esm',
    target: 'es2022',
    write: false,
    external,
    logLevel: 'error',
  });
  return gzipSync(file.contents, { level: 9 }).length;
}

test('core bundle is below 4.5 KB gzipped', async (t) => {
  const core = await size('src/index.js', ['./share/member.js']);
  t.diagnostic(`core: ${core} bytes; shared worker: ${await size('src/share/worker.js')} bytes`);
  assert.ok(core < 4608, `${core} bytes`);
});

test('composables and store are below 60 lines each', () => {
  for (const name of ['vue', 'svelte']) {
    const lines = readFileSync(`${root}${name}/index.js`, 'utf8').trimEnd().split('\n');
    assert.ok(lines.length < 60, `${name}: ${lines.length} lines`);
  }
});

test('hooks are bundled separately', async () => {
  const { outputFiles: [file] } = await build({
    stdin: { contents: "export { useSse } from './react/index.js';", resolveDir: root },
    bundle: true,
    format: 'esm',
    write: false,
    external: ['react', './share/member.js'],
    logLevel: 'error',
  });
  assert.match(file.text, /useSse/);
  for (const other of ['SSE devtools', 'class RetainedValues', 'class Hybrid', 'class Poller'])
    assert.ok(!file.text.includes(other), other);
});

test('modules that use React work in server components as client modules', () => {
  const files = readdirSync(`${root}react`, { recursive: true }).filter((f) => f.endsWith('.js'));
  const texts = files.map((file) => [file, readFileSync(`${root}react/${file}`, 'utf8')]);
  const users = texts.filter(([, text]) => text.includes("from 'react';"));
  assert.ok(users.length > 10, `${users.length} modules`);
  const other = users.filter(([, text]) => !text.startsWith("'use client';\n"));
  assert.deepEqual(other.map(([file]) => file), []);
});

test('package has no dependencies', async () => {
  const { default: manifest } = await import('../package.json', { with: { type: 'json' } });
  assert.deepEqual(manifest.dependencies ?? {}, {});
});

test('bundlers find the entry point and the worker', () => {
  // Parcel ignores `exports`.
  const { main } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));
  assert.equal(main, './src/index.js');
  const member = readFileSync(`${root}src/share/member.js`, 'utf8');
  assert.match(
    member,
    /new SharedWorker\(new URL\('\.\/worker\.js', import\.meta\.url\), \{ type: 'module'/,
  );
  // webpack ignores the expression if SharedWorker is declared in the module.
  assert.doesNotMatch(member, /\b(const|let|var) SharedWorker\b|[{,]\s*SharedWorker\s*[=,}]/);
});

/**
 * Packs the package and unpacks it in an application's node_modules. Resolves to the application's
 * folder.
 */
async function installed(t) {
  const application = mkdtempSync(path.join(os.tmpdir(), 'sse-client-package-'));
  t.after(() => rmSync(application, { recursive: true, force: true }));
  const modules = path.join(application, 'node_modules');
  mkdirSync(path.join(modules, '@sse-gateway/client'), { recursive: true });
  const { stdout } = await run('npm', ['pack', '--json', '--pack-destination', application], {
    cwd: root,
  }).catch(failWithOutput);
  const [{ filename }] = JSON.parse(stdout.slice(stdout.indexOf('[')));
  await run('tar', [
    '--extract',
    '--file',
    path.join(application, filename),
    '--strip-components=1',
    '--directory',
    path.join(modules, '@sse-gateway/client'),
  ]);
  for (const name of ['react', 'react-dom', 'svelte', 'vue', 'zod', '@types'])
    symlinkSync(`${root}node_modules/${name}`, path.join(modules, name));
  return application;
}

/** Compiles a project without output. Asserts that there are no errors, and returns the program. */
function compiled(file) {
  const { options, fileNames } = ts.getParsedCommandLineOfConfigFile(file, {}, {
    ...ts.sys, onUnRecoverableConfigFileDiagnostic: ({ messageText }) => assert.fail(messageText),
  });
  const program = ts.createProgram(fileNames, options);
  const text = ts.formatDiagnostics(ts.getPreEmitDiagnostics(program), {
    getCanonicalFileName: (name) => name,
    getCurrentDirectory: () => path.dirname(file),
    getNewLine: () => '\n',
  });
  assert.equal(text, '');
  return program;
}

/** Exports of the package, and members of exported types, without documentation on hover. */
function undocumented(folder, program) {
  const entries = ['src/index', 'src/history', 'react/index'].map((name) =>
    path.join(folder, 'types', `${name}.d.ts`));
  const checker = program.getTypeChecker();
  const isOwn = (symbol) => symbol.declarations?.some((declaration) =>
    declaration.getSourceFile().fileName.startsWith(folder));
  const missing = [];
  const check = (symbol, name) => {
    const signatures = checker.getTypeOfSymbol(symbol).getCallSignatures();
    const documented = [symbol, ...signatures].some((one) =>
      one.getDocumentationComment(checker).length > 0);
    if (!documented) missing.push(name);
  };
  for (const entry of entries) {
    const module = checker.getSymbolAtLocation(program.getSourceFile(entry));
    for (const exported of checker.getExportsOfModule(module)) {
      const isAlias = exported.flags & ts.SymbolFlags.Alias;
      const symbol = isAlias ? checker.getAliasedSymbol(exported) : exported;
      if (!isOwn(symbol)) continue;
      check(symbol, symbol.name);
      const type = checker.getDeclaredTypeOfSymbol(symbol);
      // Names of events and of a specification speak for themselves.
      for (const member of type.isUnion() ? [] : type.getProperties()) {
        if (!isOwn(member) || !/^\w+$/.test(member.name)) continue;
        check(member, `${symbol.name}.${member.name}`);
      }
    }
  }
  return missing;
}

test('packed package contains working code and types', { timeout: 300_000 }, async (t) => {
  const application = await installed(t);
  const folder = path.join(application, 'node_modules/@sse-gateway/client');
  const files = readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)));
  const required = [
    'package.json',
    'LICENSE',
    'README.md',
    'src/index.js',
    'src/share/member.js',
    'src/share/worker.js',
    'types/src/index.d.ts',
    'react/index.js',
    'react/README.md',
    'types/react/index.d.ts',
    'vue/index.js',
    'vue/README.md',
    'types/vue/index.d.ts',
    'svelte/index.js',
    'svelte/README.md',
    'types/svelte/index.d.ts',
    'dist/sse-gateway-client.min.js',
    'dist/sse-gateway-client.esm.min.js',
  ];
  for (const name of required) assert.ok(files.includes(name), name);
  const allowed = [
    /^package\.json$/,
    /^LICENSE$/,
    /^((react|svelte|vue)\/)?README\.md$/,
    /^dist\/[\w.-]+\.min\.js$/,
    /^(src|react|svelte|vue)\/([a-z]+\/)?[\w-]+\.js$/i,
    /^react\/types\.d\.ts$/,
    /^types\/(src|react|svelte|vue)\/([a-z]+\/)?[\w-]+\.d\.ts$/i,
  ];
  assert.deepEqual(files.filter((file) => !allowed.some((form) => form.test(file))), []);

  for (const kind of ['min', 'esm.min']) {
    const script = readFileSync(path.join(folder, `dist/sse-gateway-client.${kind}.js`));
    const compressed = gzipSync(script, { level: 9 }).length;
    t.diagnostic(`${kind}: ${compressed} bytes`);
    assert.ok(compressed < 8192, `${kind}: ${compressed} bytes`);
    // There is no worker beside the file: asking for it would delay shared connections by 5 s.
    assert.ok(!script.includes('import.meta'), kind);
  }

  const types = path.join(application, 'types');
  cpSync(`${root}tests/types`, types, { recursive: true });
  for (const [readme, kind, name] of [
    ['README.md', 'ts', 'readme.ts'],
    ['react/README.md', 'tsx', 'readme-react.tsx'],
  ]) {
    const [, snippet] =
      new RegExp(`^\`\`\`${kind}\\n([^]*?)^\`\`\`$`, 'm').exec(
        readFileSync(path.join(folder, readme), 'utf8'),
      ) ?? assert.fail(`no snippet in ${readme}`);
    writeFileSync(path.join(types, name), snippet);
  }
  // Node projects may not include the browser's types.
  for (const project of ['tsconfig.node.json', 'tsconfig.registered.json'])
    compiled(path.join(types, project));
  const typed = compiled(path.join(types, 'tsconfig.json'));

  assert.deepEqual(undocumented(folder, typed), []);

  // Server-side rendering: the hooks render without connecting.
  const program = path.join(application, 'render.mjs');
  writeFileSync(
    program,
    `import { createElement } from 'react';
    import { renderToString } from 'react-dom/server';
    import { connect } from '@sse-gateway/client';
    import { ConnectionStatus, useResilientRealtime } from '@sse-gateway/client/react';
    const ticket = () => { throw new Error('a ticket was requested'); };
    const Page = () =>
      createElement(ConnectionStatus, useResilientRealtime({ url: '/events', ticket }));
    console.log(typeof connect, renderToString(createElement(Page)));`,
  );
  const { stdout } = await run(process.execPath, [program]);
  assert.match(
    stdout,
    /^function <span role="status".*data-state="connecting".*Connecting<\/span>/,
  );
});
