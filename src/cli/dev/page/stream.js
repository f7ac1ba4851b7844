// The stream of events: clients/js, and the names of the events that the page receives.
import { connect } from '../client/index.js';
import { history } from '../client/history.js';
import { PRESENCE, SYSTEM } from '../client/system.js';
import { USER, api, config } from './config.js';
import { $, element } from './dom.js';
import * as record from './record.js';

const names = new Set([
  'message', 'order-completed', 'notification', 'headline', 'value', 'value-removed',
]);
/** Time, in ms, for a new name to reach the connection that all tabs share. */
const SETTLED = 5000;
const added = new Map(); // name: time, in ms, at which it was new
let stream = null;
/** Called for each event, and with each state. */
let receive = () => {};
let setState = () => {};
let onTicketError = () => {};

async function ticket() {
  try {
    const wanted = { user: USER, topics: ['*'], presence: true };
    return (await api('/tickets', JSON.stringify(wanted))).ticket;
  } catch (error) {
    onTicketError(error);
    throw error;
  }
}

export function setUp(callbacks) {
  ({ receive, setState, onTicketError } = callbacks);
  show();
}

export const reconnect = () => stream.reconnect();

/**
 * Opens a stream, after the last event id of the previous one. The client handles tickets,
 * reconnects and polling.
 */
export function open() {
  const lastEventId = stream?.lastEventId;
  stream?.close();
  setState('connecting');
  stream = connect({
    url: '/events',
    ticket,
    types: [...names],
    lastEventId,
    // One connection for all tabs of a user: a browser opens only six to an address. Tabs of a
    // previous run, which have another key, do not take part.
    share: 'user-' + USER + '-' + config.apiKey.slice(0, 8),
    retry: 500,
  });
  for (const name of [...SYSTEM, ...PRESENCE, ...names]) addHandler(name);
  stream.onState(setState);
  stream.onError(() => { /* the state shows it */ });
}
export const close = () => stream.close();
/** Opens a stream that begins now, with the retained values. */
export function restart() {
  stream.close();
  stream = null;
  open();
}

function addHandler(name) {
  stream.on(name, (data, event) => deliver(event));
}

/** The position of an event in its own source: the part of its id that has changed. */
function ownId(id, previous) {
  const before = previous.replace('!', '').split('~');
  const parts = id.replace('!', '').split('~');
  return parts.find((part) => !before.includes(part)) ?? parts[0];
}

function deliver({ id, type, data, text, retained }) {
  // It advances after this.
  const previous = stream.lastEventId ?? '';
  // Browsers repeat the last id for frames without one, such as retained values and most sse.gap.
  const own = id === previous && type !== 'sse.connected' ? '' : id;
  const item = {
    id: own && ownId(own, previous),
    position: id || previous,
    type,
    data,
    text,
    retained,
    time: Date.now(),
  };
  // It may have been read from the history before its name had a handler.
  if (own && record.find(item.id)?.history) return;
  receive(item);
}

/**
 * Receives events of this name from now on: a native EventSource only delivers names that have a
 * listener.
 */
export function listen(name) {
  // The client interprets `*` as all names.
  if (!name || name === '*' || name.startsWith('sse.') || names.has(name)) return;
  names.add(name);
  added.set(name, Date.now());
  if (stream) addHandler(name);
  show();
}
/** Whether events of this name may have passed by before its listener was added. */
export const isNew = (name) => Date.now() - added.get(name) < SETTLED;
function show() {
  $('names').replaceChildren(...[...names, 'sse.*'].map((name) => element('li', '', name)));
}

/** Receives the stored events of a channel after a position whose names had no listener. */
export async function receiveStored(channel, after, types) {
  const { events } = await history({ url: '/events', ticket, channel, after });
  for (const { id, type, data, text } of events) {
    if (!types.has(type) || record.find(id)?.received) continue;
    receive({ id, type, data, text, time: Date.now(), history: true });
  }
}
