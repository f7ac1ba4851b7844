// What the server tells the page, and requests to it.
import { $, parse } from './dom.js';

export const config = JSON.parse($('config').textContent);

const wanted = new URLSearchParams(location.search).get('user');
/** The user of this page: `?user=` of its address, or the one of the printed commands. */
export const USER = /^[\w.-]{1,64}$/.test(wanted ?? '') ? wanted : config.user;
export const USER_CHANNEL = 'user:' + USER + ':events';

/** Maximum time, in ms, to wait for a response. */
const MAX_WAIT = 10_000;

/** Sends a request with the API key. Rejects with an error that has `code` and `status`. */
export async function api(path, body, method = 'POST') {
  const response = await fetch(path, {
    method,
    headers: { 'authorization': 'Bearer ' + config.apiKey, 'content-type': 'application/json' },
    body,
    // All tabs send the same requests: one that uses the cache waits for those of the others.
    cache: 'no-store',
    signal: AbortSignal.timeout(MAX_WAIT),
  }).catch((error) => {
    if (error.name !== 'TimeoutError') throw error;
    throw new Error(`no response in ${MAX_WAIT / 1000} s`);
  });
  const value = parse(await response.text());
  if (!response.ok) {
    const error = new Error(value?.message ?? 'the gateway returned status ' + response.status);
    throw Object.assign(error, { code: value?.error, status: response.status });
  }
  return value;
}

export const read = (path) => api(path, undefined, 'GET');

/** Publishes one event, or an array of them; rejects if one was refused. Resolves to the ids. */
export async function publish(event) {
  const results = [await api('/publish', typeof event === 'string' ? event : JSON.stringify(event))]
    .flat();
  for (const { error, message } of results) {
    if (error) throw Object.assign(new Error(message || error), { code: error });
  }
  return results.map(({ id }) => id);
}

/** What to show if `publish` rejects. Without a response, the event may have been published. */
export const failure = ({ message, code }) =>
  code ? `Not published: ${message} (${code})` : `Perhaps not published: ${message}`;
