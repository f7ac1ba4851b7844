// The commands and snippets of README.md and the book work as printed; only ports and paths of
// temporary files are replaced.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Listener } from './lib/listener.js';
import { folder, kill, printed, run, start, until } from './lib/processes.js';
import { BINARY, Gateway, PYTHON, Redis, SECRET, ticket } from './lib/servers.js';

/** An event id, and a line with one. */
const ID = /^\d+-\d+\.[0-9a-z]+$/;
const LINE_WITH_ID = /^\d+-\d+\.[0-9a-z]+\n$/;

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(here, '../..');

/** The code blocks of a page in a language. */
function blocks(page, language) {
  const text = readFileSync(path.join(root, page), 'utf8');
  const found = [...text.matchAll(/^```(\w+)\n([^]*?)^```$/gm)];
  return found.filter(([, kind]) => kind === language).map(([, , code]) => code);
}

/** The only block of a page that contains a text. */
function block(page, language, text) {
  const found = blocks(page, language).filter((code) => code.includes(text));
  assert.equal(found.length, 1, `${page} must have one ${language} block with ${text}`);
  return found[0];
}

/** A directory in which Node finds the packages of these tests. */
function project(t) {
  const directory = folder(t, 'docs');
  symlinkSync(path.join(here, 'node_modules'), path.join(directory, 'node_modules'));
  return directory;
}

/** Runs a program in Node; what it prints. */
async function node(directory, code, env = {}) {
  const file = path.join(directory, 'program.mjs');
  writeFileSync(file, code);
  return (await run(process.execPath, [file], { env: { PATH: process.env.PATH, ...env } })).trim();
}

const python = async (code, env = {}) =>
  (await run(PYTHON, ['-c', code], { env: { PATH: process.env.PATH, ...env } })).trim();

/** A gateway that records, and a listener of user 42. */
async function listening(t) {
  const redis = await Redis.start(t);
  const gateway = await Gateway.start(t, { redis });
  await gateway.records();
  const listener = await Listener.open(t, gateway.events('42'), ['order-completed']);
  return { redis, gateway, listener };
}

const ORDER = { type: 'order-completed', data: '{"orderId":7}' };

async function gotOrders(listener, count) {
  await listener.got(count);
  for (const { type, data } of listener.events) {
    assert.deepEqual({ type, data: JSON.stringify(JSON.parse(data)) }, ORDER);
  }
}

test('publishing from Node', async (t) => {
  const { redis, listener } = await listening(t);
  const page = 'docs/guides/publishing-from-node.md';
  const program = block(page, 'js', 'redis.publish').replace('6379', String(redis.port));
  const again = block(page, 'js', 'KEY');
  const all = `${again}${again}await redis.quit();`;
  const withKey = program.replace('await redis.quit();', all);
  assert.match(await node(project(t), withKey), ID);
  // Durable, plain, and one of the two with a key.
  await gotOrders(listener, 3);
});

test('publishing from Python', async (t) => {
  const { redis, listener } = await listening(t);
  const page = 'docs/guides/publishing-from-python.md';
  const program = block(page, 'python', 'r.publish').replace('6379', String(redis.port));
  const again = block(page, 'python', 'KEY');
  assert.match(await python(program + again + again), ID);
  await gotOrders(listener, 3);
});

test('undelivered events reach a worker that acknowledges them', async (t) => {
  const { redis, listener } = await listening(t);
  const page = 'docs/guides/undelivered-events.md';
  const client = redis.client(t);
  // The workers have the documented permissions, and no more.
  const [, rules] = /^user mailer (.*)$/m.exec(readFileSync(path.join(root, page), 'utf8'));
  await client.acl('SETUSER', 'mailer', ...rules.split(' '));
  const local = (code) =>
    code.replace('127.0.0.1:6379', `mailer:mailer-password@127.0.0.1:${redis.port}`);
  // Longer than a worker waits for entries (5 s), and than a slow gateway to report deliveries.
  const publish = (user, data) =>
    client.fcall('sse_publish', 1, `user:${user}:events`, 'order-completed', data, 'UNSEEN', '7s');
  const pending = async () => (await client.xpending('sse:undelivered:{broadcast}', 'emails'))[0];
  const directory = project(t);
  const file = path.join(directory, 'worker.mjs');
  writeFileSync(file, local(block(page, 'js', 'xautoclaim')));
  const env = { PATH: process.env.PATH };
  const workers = {
    node: () => start(process.execPath, [file], { env }),
    python: () => start(PYTHON, ['-c', local(block(page, 'python', 'xautoclaim'))], { env }),
  };
  for (const [n, begin] of Object.values(workers).entries()) {
    await publish('42', ORDER.data);
    const id = await publish(`away-${n}`, `{"n":${n}}`);
    const worker = begin();
    t.after(() => kill(worker));
    const line = `email user:away-${n}:events order-completed {"n":${n}} ${id}\n`;
    await printed(worker, ({ out }) => out.includes(line), 'the email');
    await until(async () => (await pending()) === 0, 'it is not acknowledged');
    assert.equal(worker.out, line, 'what was delivered is not reported');
    await kill(worker);
  }
  await gotOrders(listener, 2);
});

test('publishing with redis-cli', async (t) => {
  const { redis, listener } = await listening(t);
  const code = block('docs/concepts/plain-and-durable-publishing.md', 'sh', 'FCALL');
  await run('bash', ['-ec', code.replaceAll('redis-cli', `redis-cli -p ${redis.port}`)]);
  await gotOrders(listener, 3);
});

test('the backend snippet of the README', async (t) => {
  const { redis, gateway, listener } = await listening(t);
  const code = block('README.md', 'js', 'ioredis').replace('6379', String(redis.port));
  const program = `${code}console.log(id, ticket); await redis.quit();`;
  const [id, made] = (await node(project(t), program, { TICKET_SECRET: SECRET })).split(' ');
  assert.match(id, ID);
  await gotOrders(listener, 1);
  assert.equal((await opens(gateway, made)).status, 200);
});

/** Opens a stream and closes it. */
async function opens(gateway, made) {
  const control = new AbortController();
  const { signal } = control;
  const response = await fetch(`${gateway.url}/events?ticket=${made}`, { signal });
  control.abort();
  return response;
}

test('every ticket that the page makes opens a stream', async (t) => {
  const gateway = await Gateway.start(t, { redis: await Redis.start(t) });
  const page = 'docs/guides/issuing-tickets.md';
  const env = { TICKET_SECRET: SECRET };
  const directory = project(t);
  const made = [];
  for (const code of blocks(page, 'js')) made.push(await node(directory, code, env));
  made.push(await python(block(page, 'python', 'hmac.digest'), env));
  assert.equal(made.length, 3);
  for (const one of made) assert.equal((await opens(gateway, one)).status, 200, one);
});

test('publishing over HTTP, tickets and the admin listener', async (t) => {
  const redis = await Redis.start(t);
  const directory = folder(t, 'http');
  const local = (code) => code.replaceAll('/tmp/', `${directory}/`);
  const page = 'docs/guides/publishing-over-http.md';
  const key = local(block(page, 'sh', 'openssl'));
  const keys = (await run('bash', ['-ec', `${key}printf %s "$SSE_GATEWAY__API_KEYS"`])).trim();
  const gateway = await Gateway.start(t, { redis, settings: { api_keys: keys } });
  const curl = async (code) => run('bash', ['-ec', local(code)
    .replaceAll('http://127.0.0.1:8080', gateway.url)
    .replaceAll('http://127.0.0.1:9090', gateway.admin)]);

  const one = JSON.parse(await curl(block(page, 'sh', 'order-7-completed')));
  assert.match(one.id, ID);
  const [good, bad] = JSON.parse(await curl(block(page, 'sh', 'nowhere')));
  assert.match(good.id, ID);
  assert.equal(bad.error, 'bad-channel');

  const made = await curl(block('docs/guides/issuing-tickets.md', 'sh', '/tickets'));
  assert.equal((await opens(gateway, JSON.parse(made).ticket)).status, 200);

  const answers = await curl(block('docs/operations/deployment.md', 'sh', '/connections?user=42'));
  assert.match(answers, /"connections":\[/);
  assert.match(answers, /"revoked":true/);
});

test('the public key of the page is accepted', async (t) => {
  const directory = folder(t, 'keys');
  const code = block('docs/guides/issuing-tickets.md', 'sh', 'genpkey');
  const shell = `${code.replaceAll('/tmp/', `${directory}/`)}exec ${BINARY} check-config`;
  await run('bash', ['-ec', shell], { env: { PATH: process.env.PATH } });
});

test('the documented Redis users have the permissions they need, and no more', async (t) => {
  const redis = await Redis.start(t);
  const admin = redis.client(t);
  const page = readFileSync(path.join(root, 'docs/operations/redis.md'), 'utf8');
  // Without the user of the sentinels.
  const users = [...page.matchAll(/^user (\S+) (.*)$/gm)].filter(([, name]) => name !== 'watcher');
  assert.deepEqual(users.map(([, name]) => name), ['gateway', 'shop', 'legacy']);
  for (const [, name, rules] of users) await admin.acl('SETUSER', name, ...rules.split(' '));
  const url = (user, password) => `redis://${user}:${password}@127.0.0.1:${redis.port}`;

  const gateway = await Gateway.start(t, { redis: url('gateway', 'gw-password') });
  await gateway.records();
  const types = ['order-completed', 'message'];
  const listener = await Listener.open(t, gateway.events('42', { topics: ['news'] }), types);
  const cli = (to, ...args) => run('redis-cli', ['--no-auth-warning', '-u', to, ...args]);
  const shop = url('shop', 'shop-password');
  const publish = (channel, ...more) =>
    cli(shop, 'FCALL', 'sse_publish', '1', channel, ORDER.type, ORDER.data, ...more);
  assert.match(await publish('user:42:events', 'KEY', 'k'), LINE_WITH_ID);
  assert.match(await publish('broadcast:news'), LINE_WITH_ID);
  assert.match(await publish('{broadcast}:news'), LINE_WITH_ID);
  await cli(url('legacy', 'legacy-password'), 'PUBLISH', 'user:42:events', 'plain');
  const [first] = await listener.got(4);
  const again = `${gateway.events('42', { topics: ['news'] })}&lastEventId=${first.id}`;
  const resumed = await Listener.open(t, again, types);
  assert.equal((await resumed.got(3)).length, 3);

  const node = 'sse:node:{broadcast}';
  const forge = ['FCALL', 'sse_lease', '1', 'sse:recorder:{broadcast}', 'recorder', 'x', '1000'];
  assert.match(await cli(shop, 'GET', 'unrelated'), /NOPERM/);
  assert.match(await cli(shop, 'SET', 'sse:revoked:{user:42:events}', '1'), /NOPERM/);
  assert.match(await cli(shop, ...forge), /NOPERM/);
  assert.match(await cli(shop, 'PUBLISH', 'user:42:events', 'plain'), /NOPERM/);
  assert.match(await cli(url('legacy', 'legacy-password'), 'GET', node), /NOPERM/);
  assert.doesNotMatch(gateway.process.err, /NOPERM|can't run this command/);
});

test('getting started, in three terminals', async (t) => {
  const redis = await Redis.start(t);
  const directory = folder(t, 'start');
  const home = path.join(directory, 'bin');
  mkdirSync(home);
  symlinkSync(BINARY, path.join(home, 'sse-gateway'));
  const page = 'docs/getting-started.md';
  const serve = block(page, 'sh', 'sse-gateway serve');
  // It is built already.
  const lines = serve.split('\n').filter((line) => line && !line.startsWith('cargo build'));
  const exports = lines.filter((line) => line.startsWith('export'));
  assert.equal(exports.length, 2, 'the two export lines of which the page speaks');
  let url;
  const local = (code) => code
    .replaceAll('/tmp/', `${directory}/`)
    .replaceAll('$PWD/target/release', home)
    .replaceAll('redis-cli', `redis-cli -p ${redis.port}`)
    .replaceAll('http://127.0.0.1:8080', url);
  const env = {
    PATH: process.env.PATH,
    SSE_GATEWAY__REDIS__URL: redis.url,
    SSE_GATEWAY__SERVER__LISTEN: '127.0.0.1:0',
    SSE_GATEWAY__ADMIN__LISTEN: '127.0.0.1:0',
    SSE_GATEWAY__LOG__FORMAT: 'json',
    SSE_GATEWAY__DRAIN__DELAY: '0s',
  };
  const terminal = (code) => {
    const shell = start('bash', ['-c', local(code)], { env, detached: true });
    t.after(async () => {
      try { process.kill(-shell.pid, 'SIGKILL'); } catch { /* it has ended */ }
      await shell.exited;
    });
    return shell;
  };
  const first = terminal(lines.join('\n'));
  const address = ({ err }) => /"public":"([^"]+)"/.exec(err)?.[1];
  url = `http://${await printed(first, address, 'where it listens')}`;
  const second = terminal([...exports, block(page, 'sh', 'curl -N')].join('\n'));
  await printed(second, ({ out }) => out.includes('sse.connected'), 'sse.connected');
  const third = await run('bash', ['-ec', local(block(page, 'sh', 'FCALL'))], { env });
  const [id] = /\d+-\d+\.[0-9a-z]+/.exec(third);
  const event = `id: ${id}\nevent: order-completed`;
  await printed(second, ({ out }) => out.includes(event), 'the event');

  const follow = terminal([...exports, block(page, 'sh', 'tail')].join('\n'));
  await printed(follow, ({ out }) => out.includes('sse.connected'), 'sse.connected');
  const published = [...exports, block(page, 'sh', 'sse-gateway publish')].join('\n');
  await run('bash', ['-ec', local(published)], { env });
  await printed(follow, ({ out }) => out.includes('order-completed'), 'the event in tail');
  const trace = block(page, 'sh', 'trace').replace(/\d{13}-\d+\.\w+/, id);
  const script = local([...exports, trace].join('\n'));
  assert.match(await run('bash', ['-ec', script], { env }), /user:42/);
  await kill(first, 'SIGTERM');
});

/** Runs a page's snippet for browsers with an EventSource for Node. */
async function inPage(t, gateway, code, end) {
  const directory = project(t);
  const prelude = `
    import { EventSource } from 'eventsource';
    globalThis.EventSource = EventSource;
    const network = globalThis.fetch; // the EventSource uses it, too
    const made = { json: async () => ({ ticket: process.env.TICKET }) };
    globalThis.fetch = async (to, how) => (to === '/api/sse-ticket' ? made : network(to, how));
    globalThis.showOrder = (order) => console.log('order', order.orderId);
    globalThis.reloadFromBackend = () => console.log('gap');
  `;
  const file = path.join(directory, 'page.mjs');
  const local = code.replace(/https?:\/\/(events\.example\.com|127\.0\.0\.1:8080)/, gateway.url);
  writeFileSync(file, prelude + local + end);
  const env = { PATH: process.env.PATH, TICKET: ticket('42') };
  const child = start(process.execPath, [file], { env });
  t.after(() => kill(child));
  return child;
}

for (const [page, end] of [['README.md', ''], ['docs/guides/browser.md', 'await connect();']]) {
  test(`the browser snippet of ${page}`, async (t) => {
    const redis = await Redis.start(t);
    const gateway = await Gateway.start(t, { redis });
    const child = await inPage(t, gateway, block(page, 'js', 'new EventSource'), end);
    // A stream is counted before it has a position. It has one when its first frame is sent.
    await until(async () => (await gateway.metric('sse_bytes_sent_total')) > 0, 'a stream');
    await redis.client(t).fcall('sse_publish', 1, 'user:42:events', ORDER.type, ORDER.data);
    await printed(child, ({ out }) => out.includes('order 7'), 'the order');
  });
}

test('the loop of polls', async (t) => {
  const redis = await Redis.start(t);
  const gateway = await Gateway.start(t, { redis });
  const code = block('docs/guides/polling.md', 'js', 'async function poll');
  const directory = project(t);
  const file = path.join(directory, 'polls.mjs');
  const print = '(all) => all.forEach((e) => console.log(e.data))';
  const end = `await poll(async () => process.env.TICKET, ${print});`;
  writeFileSync(file, code.replace('http://127.0.0.1:8080', gateway.url) + end);
  const env = { PATH: process.env.PATH, TICKET: ticket('42') };
  const child = start(process.execPath, [file], { env });
  t.after(() => kill(child));
  // Two polls have been opened: the second one waits, with an id.
  const polls = 'sse_connections_opened_total{transport="poll"}';
  const second = async () => (await gateway.metric(polls)) >= 2;
  await until(second, 'the second poll');
  await redis.client(t).fcall('sse_publish', 1, 'user:42:events', ORDER.type, ORDER.data);
  await printed(child, ({ out }) => out.includes(ORDER.data), 'the event');
});

/** The data of notifications that a program prints, one in each line. */
async function notifies(t, code) {
  const redis = await Redis.start(t);
  const gateway = await Gateway.start(t, { redis, settings: { 'history.max_len': '5000' } });
  const client = redis.client(t);
  let n = 0;
  const publish = async (count) => {
    for (const end = n + count; n < end; n++)
      await client.fcall('sse_publish', 1, 'user:42:events', 'notification', String(n));
  };
  // More than one page.
  await publish(1050);
  const child = await inPage(t, gateway, code, '');
  await until(async () => (await gateway.metric('sse_connections')) === 1, 'a stream');
  await publish(3);
  await printed(child, ({ out }) => out.endsWith(`${n - 1}\n`), 'the last notification');
  assert.deepEqual(child.out.trim().split('\n').map(Number), [...Array(n).keys()]);
}

test('the list of notifications of the history guide', async (t) => {
  const code = block('docs/guides/history.md', 'js', 'async function notifications');
  await notifies(t, `${code}await notifications('42', (data) => console.log(data));`);
});

test('the list of notifications of the JavaScript client', async (t) => {
  const code = block('clients/js/README.md', 'js', 'await history(');
  const page = `
    const user = { id: '42' };
    const ticket = async () => process.env.TICKET;
    const addToList = (data) => console.log(data);
  `;
  const source = path.join(root, 'clients/js/src');
  const local = code
    .replace("'@sse-gateway/client'", `'${source}/index.js'`)
    .replace("'@sse-gateway/client/history'", `'${source}/history.js'`)
    .replace("'/events'", "'http://127.0.0.1:8080/events'");
  await notifies(t, page + local);
});

test('the recipe for TanStack Query is the one that react/query.test.js runs', () => {
  const recipe = block('clients/js/react/README.md', 'jsx', 'function useOrders()');
  const tested = readFileSync(path.join(here, 'react/app.jsx'), 'utf8');
  const [, body] = recipe.split('function useOrders()');
  assert.ok(tested.includes(`function useOrders(url)${body}`), 'app.jsx has another one');
});
