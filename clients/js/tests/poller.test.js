// usePolling's requests, with a fake clock.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { joinPoller, pollerOf } from '../react/poller.js';
import { settled } from './lib/fake.js';

/** Starts a hook: { calls, leave(), options, notified, advance(ms), answer(value) }. */
function join(t, key, options = {}) {
  const calls = [];
  const latest = {
    current: {
      interval: 1000,
      fetcher: ({ signal }) => new Promise((resolve, reject) => {
        calls.push({ resolve, reject, signal });
      }),
      ...options,
    },
  };
  const user = { notified: 0, notify: () => { user.notified += 1; }, options: latest };
  const leave = joinPoller(key, user);
  t.after(leave);
  return {
    calls,
    leave,
    options: latest,
    state: () => pollerOf(key).state(),
    async answer(value) {
      const call = calls.at(-1);
      if (value instanceof Error) call.reject(value);
      else call.resolve(value);
      await settled();
    },
  };
}

function clock(t) {
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1e12 });
  return async (ms) => {
    t.mock.timers.tick(ms);
    await settled();
  };
}

test('hooks with the same key share requests and data', async (t) => {
  const advance = clock(t);
  const first = join(t, 'a', { interval: 5000 });
  const second = join(t, 'a');
  const other = join(t, 'b');
  const anonymous = [join(t, {}), join(t, {})];
  assert.deepEqual([first.calls.length, second.calls.length, other.calls.length], [1, 0, 1]);
  assert.deepEqual(anonymous.map(({ calls }) => calls.length), [1, 1]);
  await first.answer(1);
  assert.deepEqual([first, second, other].map((hook) => hook.state().data), [1, 1, undefined]);
  // The shortest interval, and the newest fetcher.
  await advance(999);
  assert.equal(second.calls.length, 0);
  await advance(1);
  assert.equal(second.calls.length, 1);
  await second.answer(2);
  second.leave();
  await settled();
  await advance(4999);
  assert.equal(first.calls.length, 1);
  await advance(1);
  assert.equal(first.calls.length, 2);
});

test('pause grows with failures, up to its maximum, until a success', async (t) => {
  const advance = clock(t);
  const hook = join(t, 'a', { maxInterval: 8000 });
  const pauses = [];
  const pause = async () => {
    const before = hook.calls.length;
    for (let ms = 0; ; ms += 50) {
      if (hook.calls.length > before) return pauses.push(ms);
      await advance(50);
    }
  };
  for (let i = 0; i < 5; i += 1) {
    await hook.answer(new Error('failed'));
    assert.match(hook.state().error.message, /failed/);
    await pause();
  }
  for (const [i, most] of [2000, 4000, 8000, 8000, 8000].entries())
    assert.ok(pauses[i] >= 0.7 * most && pauses[i] <= most + 50, `${pauses}`);
  await hook.answer('x');
  assert.deepEqual(hook.state(), { data: 'x', error: undefined, isFetching: false });
  await pause();
  assert.equal(pauses.at(-1), 1000);
  // Data stays when a later request fails; a request that hangs fails, too.
  await advance(45_000);
  assert.equal(hook.state().data, 'x');
  assert.match(hook.state().error.message, /timed out/);
  assert.ok(hook.calls.at(-1).signal.aborted);
});

test('refetch during a request causes one more for all callers', async (t) => {
  const advance = clock(t);
  const hook = join(t, 'a', { interval: Infinity });
  const poller = pollerOf('a');
  const done = Promise.all([poller.refetch(), poller.refetch()]);
  await hook.answer('old');
  assert.equal(hook.calls.length, 2);
  await hook.answer('new');
  await done;
  assert.deepEqual([hook.state().data, hook.calls.length], ['new', 2]);
  await advance(1e9);
  assert.equal(hook.calls.length, 2, 'an infinite interval polls once');
});

test('last hook that leaves aborts the request, strict mode does not', async (t) => {
  const advance = clock(t);
  const hook = join(t, 'a');
  hook.leave();
  const again = join(t, 'a');
  await settled();
  assert.equal(hook.calls[0].signal.aborted, false);
  await hook.answer(1);
  assert.equal(again.state().data, 1);
  await advance(1000);
  again.leave();
  await settled();
  assert.ok(again.calls[0].signal.aborted);
  assert.equal(pollerOf('a'), undefined);
  await advance(60_000);
  assert.equal(again.calls.length, 1);
});

test('disabled hook only fetches with refetch', async (t) => {
  const advance = clock(t);
  const hook = join(t, 'a', { enabled: false });
  await advance(60_000);
  assert.equal(hook.calls.length, 0);
  pollerOf('a').refetch();
  await hook.answer(1);
  await advance(60_000);
  assert.deepEqual([hook.state().data, hook.calls.length], [1, 1]);
});

test('fetcher of a disabled hook is not called while another hook is enabled', async (t) => {
  const advance = clock(t);
  const enabled = join(t, 'a');
  const disabled = join(t, 'a', { enabled: false });
  await enabled.answer(1);
  await advance(1000);
  assert.deepEqual([enabled.calls.length, disabled.calls.length], [2, 0]);
});
