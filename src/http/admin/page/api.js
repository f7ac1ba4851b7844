// Requests to the API of the admin listener, with the API key of this tab.
import { parse } from './dom.js';

const STORED = 'sse-gateway-admin-key';
let scopes = new Set();
let onDenied = () => {};

export const storedKey = () => sessionStorage.getItem(STORED);
export const mayEndSessions = () => scopes.has('operate');
export const mayPublish = () => scopes.has('operate') || scopes.has('publish');

/** Calls `listener` with the error when the key is not accepted any more. */
export const whenDenied = (listener) => { onDenied = listener; };

/** Remembers the key, if the gateway accepts it. Rejects if it does not. */
export async function signIn(key) {
  const answer = await request(key, '/api/v1/key');
  sessionStorage.setItem(STORED, key);
  scopes = new Set(answer.scopes);
}

export function signOut() {
  sessionStorage.removeItem(STORED);
  scopes = new Set();
}

/** Sends a request. Rejects with an error that has `code` and `status`. */
export async function api(path, query = {}, options = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== '');
  const search = given.length ? '?' + new URLSearchParams(given) : '';
  try {
    return await request(storedKey() ?? '', path + search, options);
  } catch (error) {
    if (error.status === 401) onDenied(error);
    throw error;
  }
}

async function request(key, path, options = {}) {
  let response;
  try {
    response = await fetch(path, {
      ...options,
      headers: { ...options.headers, authorization: 'Bearer ' + key },
      cache: 'no-store',
      credentials: 'omit',
    });
  } catch {
    throw new Error('The gateway does not respond.');
  }
  const value = parse(await response.text());
  if (response.ok && value) return value;
  const error = new Error(value?.message ?? 'The gateway returned status ' + response.status + '.');
  throw Object.assign(error, { code: value?.error, status: response.status });
}
