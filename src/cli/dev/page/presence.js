// The panel of users who are online.
import { USER, read } from './config.js';
import { $, element } from './dom.js';

const OTHERS = ['alice', 'bob', 'carol', 'demo'];
const online = new Set();

/** Takes an event of the stream. */
export function updatePresence({ type, data }) {
  if (type === 'sse.online') online.add(data?.user);
  else if (type === 'sse.offline') online.delete(data?.user);
  else return;
  draw();
}

/** Loads who is online. The stream must be open: events since then apply to the result. */
export async function loadPresence() {
  const { users } = await read('/dev/online');
  online.clear();
  for (const user of users) online.add(user);
  draw();
}

function draw() {
  const items = [...online].sort().map((user) =>
    element('li', '', user === USER ? user + ' (this page)' : user));
  $('online').replaceChildren(...items);
  const other = OTHERS.find((user) => user !== USER && !online.has(user)) ?? OTHERS[0];
  $('other-user').href = '/?user=' + other;
  $('other-user').textContent = 'Open a tab as ' + other;
}
draw();
