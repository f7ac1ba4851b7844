// The snippets and tables of clients/js/README.md match the code.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startSite, Numbers } from '../lib/application.js';
import { folder, kill, printed, start } from '../lib/processes.js';
import { Gateway, Redis, ticket } from '../lib/servers.js';

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(here, '../../../clients/js');
const readme = readFileSync(path.join(root, 'README.md'), 'utf8');
const blocks = [...readme.matchAll(/^```(js|ts)\n([^]*?)^```$/gm)].map(([, kind, code]) => ({
  kind,
  code,
}));
const block = (text) => {
  const found = blocks.filter(({ code }) => code.includes(text));
  assert.equal(found.length, 1, text);
  return found[0].code;
};

/** Creates an application folder with the client installed. */
function application(t) {
  const app = folder(t, 'application');
  mkdirSync(path.join(app, 'node_modules/@sse-gateway'), { recursive: true });
  symlinkSync(root, path.join(app, 'node_modules/@sse-gateway/client'));
  symlinkSync(
    path.resolve(here, '../node_modules/eventsource'),
    path.join(app, 'node_modules/eventsource'),
  );
  return app;
}

test('every JavaScript snippet has valid syntax', async (t) => {
  const app = application(t);
  assert.ok(blocks.length >= 7);
  for (const [i, { kind, code }] of blocks.entries()) {
    if (kind !== 'js') continue; // TypeScript is compiled by clients/js/tests
    const file = path.join(app, `${i}.mjs`);
    writeFileSync(file, code);
    const child = start(process.execPath, ['--check', file]);
    const { code: status } = await child.exited;
    assert.equal(status, 0, child.err);
  }
});

test('Node program receives events', async (t) => {
  const redis = await Redis.start(t);
  const gateway = await Gateway.start(t, { redis });
  const numbers = new Numbers(redis.client(t));
  const app = application(t);

  const make = () => JSON.stringify({ ticket: ticket('42') });
  const site = await startSite(t, { make });
  const program = path.join(app, 'program.mjs');
  writeFileSync(program, block("from 'eventsource'"));
  const child = start(process.execPath, [program], {
    env: {
      PATH: process.env.PATH,
      GATEWAY_URL: `${gateway.url}/events`,
      TICKET_URL: `${site.url}/ticket`,
    },
  });
  t.after(() => kill(child));
  const flow = numbers.flow(50);
  await printed(child, ({ out }) => /\{ n: \d+ \}/.test(out), 'an event');
  await flow.stop();
});

test('documented options and defaults match the code', () => {
  const source = readFileSync(path.join(root, 'src/index.js'), 'utf8');
  const table = readme.slice(readme.indexOf('| option |'), readme.indexOf('| the stream |'));
  const documented = Object.fromEntries(
    [...table.matchAll(/^\| `(\w+)` \| `([^`]+)` \|/gm)].map(([, name, value]) => [name, value]),
  );
  for (const name of ['heartbeat', 'retry', 'retryMax', 'failures', 'probe']) {
    const [, value] = new RegExp(`\\b${name}(?: = |: )([\\d_]+)`).exec(source);
    assert.equal(documented[name], value.replaceAll('_', ''), name);
  }
  const types = readFileSync(path.join(root, 'src/types.js'), 'utf8');
  const options = [
    ...types
      .slice(types.indexOf('ConnectOptions\n'), types.indexOf('Members'))
      .matchAll(/^ \* @property \{.+?\} \[?(\w+)\]? /gm),
  ].map(([, name]) => name);
  assert.ok(options.length >= 14, String(options));
  for (const name of options)
    assert.ok(table.includes(`\`${name}\``), `${name} is not in the table`);
});
