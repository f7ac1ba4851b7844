// The admin page: one view at a time, named by the fragment of the address.
import { $ } from './dom.js';
import { openChannel, setUpChannel } from './channel.js';
import { follow } from './overview.js';
import { openPublish, setUpPublish } from './publish.js';
import { setUpSession } from './session.js';
import { openTrace, setUpTrace } from './trace.js';
import { openUsers, setUpUsers } from './users.js';

let current = 'overview';
const readOverview = follow(() => !$('app').hidden);
const VIEWS = {
  overview: () => readOverview(),
  users: openUsers,
  channel: openChannel,
  trace: openTrace,
  publish: openPublish,
};

function show() {
  if ($('app').hidden) return;
  const [name, query = ''] = location.hash.slice(1).split('?');
  current = Object.hasOwn(VIEWS, name) ? name : 'overview';
  for (const view of Object.keys(VIEWS)) $('view-' + view).hidden = view !== current;
  for (const link of document.querySelectorAll('.tabs a')) {
    if (link.hash === '#' + current) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  VIEWS[current](new URLSearchParams(query));
}

setUpUsers();
setUpChannel();
setUpTrace();
setUpPublish();
addEventListener('hashchange', show);
await setUpSession(() => { readOverview(); show(); });
