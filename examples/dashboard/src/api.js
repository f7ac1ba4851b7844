// Requests to the backend. Events do not arrive this way, but on the stream.

/** Sends a GET request, or a POST request if there is a body. */
async function request(path, body) {
  const response = await fetch(path, body && {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  const value = await response.json().catch(() => null);
  if (!response.ok || value === null) {
    throw new Error(value?.message ?? `The backend returned status ${response.status}`);
  }
  return value;
}

/** Resolves to { gateway, topic, users }. */
export const getConfig = () => request('/api/config');
/** Resolves to { desk, cursor }: a user's state, and the id after which the stream starts. */
export const getDesk = (user) => request(`/api/desk?user=${encodeURIComponent(user)}`);
export const getTicket = async (user) => (await request('/api/ticket', { user })).ticket;
/** Publishes to a user or to `all`. Resolves to the ids of the events. */
export const publish = async (to, type, count) =>
  (await request('/api/publish', { to, type, count })).ids;
