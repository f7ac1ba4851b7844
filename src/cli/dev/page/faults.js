// The buttons that interrupt the stream, and the report on what arrived afterwards.
import { USER, USER_CHANNEL, api, publish, read } from './config.js';
import { $, dismissNotice, showResult } from './dom.js';
import { readPublished } from './published.js';
import * as record from './record.js';
import * as stream from './stream.js';

/** Number of events that the buttons publish while the stream is interrupted. */
const EVENTS = 3;
/** Time, in ms, between two of them, so that the timeline shows each. */
const PAUSE = 200;
let why = ''; // reason of the next interruption
let number = 0;
let refocus = false;
/** The outage to report on. */
let reported = null;

async function publishMeanwhile() {
  for (let count = 0; count < EVENTS; count += 1) {
    const payload = { missed: number += 1 };
    await publish({ channel: USER_CHANNEL, type: 'notification', payload });
    await new Promise((resolve) => { setTimeout(resolve, PAUSE); });
  }
  await readPublished();
}

/** Runs what a button does, and shows the error if it fails. */
const action = (run) => async () => {
  for (const id of BUTTONS) $(id).disabled = true;
  try { await run(); } catch (error) { showResult('resume-result', 'bad', error.message); }
  update();
};

function disconnect() {
  why = 'disconnected';
  stream.close();
  for (const key of ['busy', 'closing', 'gap']) dismissNotice(key);
  showState('disconnected');
  showResult('resume-result', '', 'Disconnected. Publish something, here or from a terminal.');
  $('publish-away').focus();
}

function reconnect() {
  // The focused button disappears: move the focus to the disconnect button once it is enabled.
  refocus = [$('back'), $('publish-away')].includes(document.activeElement);
  stream.open();
}

/** Kills the gateway that serves this page; the page continues on the other one. */
async function killGateway() {
  const { gateway, pid } = await read('/dev/gateway');
  why = `gateway ${gateway} killed`;
  await api('/dev/kill?pid=' + pid).catch((error) => {
    // The response never arrives, or that of the other gateway, which the browser asks then.
    if (error.status) throw error;
  });
  showResult('resume-result', '', `Gateway ${gateway} (process ${pid}) was killed.`);
  await publishMeanwhile();
}

/** Deletes events from the history before this page can receive them. */
async function causeGap() {
  disconnect();
  showResult('resume-result', '', 'Disconnected. The history will lose events before this page ' +
    'receives them.');
  await publishMeanwhile();
  await api('/dev/trim?user=' + USER);
  reconnect();
}

let state = 'connecting';
/** Follows the state of the stream. */
export function showState(now) {
  if (now === state) return;
  state = now;
  $('state').dataset.state = state;
  $('state').textContent = state;
  const isUp = state === 'open' || state === 'polling';
  if (isUp) {
    record.resumed();
    reported = record.outages.at(-1);
    readPublished().then(report, () => {});
  } else if (state !== 'connecting' && state !== 'closed') {
    reported = null;
    record.interrupted(why || 'connection lost');
  }
  if (isUp) why = '';
  update();
  if (isUp && refocus) {
    refocus = false;
    $('drop').focus();
  }
}

const BUTTONS = ['drop', 'back', 'publish-away', 'kill', 'gap'];
function update() {
  const away = state === 'disconnected';
  $('drop').hidden = away;
  $('back').hidden = $('publish-away').hidden = !away;
  for (const id of ['drop', 'kill', 'gap']) $(id).disabled = state !== 'open';
  for (const id of ['back', 'publish-away']) $(id).disabled = !away;
}

/** Reports how many of the events that were published meanwhile have arrived. */
function report() {
  if (!reported?.to) return;
  const expected = record.publishedDuring(reported);
  const arrived = expected
    .filter(({ received }) => received)
    .sort((one, other) => one.arrival - other.arrival);
  const gap = record.gaps.find(({ at }) => at >= reported.to);
  const inOrder = arrived.every(({ copies }) => copies === 1) && record.areInOrder(arrived);
  const [kind, text] = verdict(expected.length, arrived.length, inOrder, gap);
  showResult('resume-result', kind, text);
}

function verdict(expected, arrived, inOrder, gap) {
  if (!inOrder) return ['bad', 'Reconnected, but an event arrived twice or out of order.'];
  const events = expected === 1 ? 'The event' : `All ${expected} events`;
  if (gap) {
    return ['warn', `Reconnected after a gap (${gap.reason}): ${arrived} of ${expected} events ` +
      'arrived. The page was notified, and would now load its state from the backend.'];
  }
  if (!expected) return ['ok', 'Reconnected. No event was published meanwhile.'];
  if (arrived < expected) {
    return ['', `Reconnected. ${arrived} of ${expected} events have arrived.`];
  }
  return ['ok', `Reconnected. ${events} published meanwhile arrived, once and in order.`];
}

export function setUpFaults() {
  record.onChange(report);
  $('drop').onclick = disconnect;
  $('back').onclick = reconnect;
  $('publish-away').onclick = action(async () => {
    await publishMeanwhile();
    showResult('resume-result', '', EVENTS + ' events were published.');
    update();
    $('back').focus();
  });
  $('kill').onclick = action(killGateway);
  $('gap').onclick = action(causeGap);
}
