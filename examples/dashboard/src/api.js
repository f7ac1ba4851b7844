// What the page asks of the backend. Commands go this way, events come by the stream.

async function ask(path, question) {
  const answer = await fetch(path, question && {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(question),
  });
  const value = await answer.json().catch(() => null);
  if (!answer.ok || value === null) throw new Error(value?.message ?? `The backend answered ${answer.status}`);
  return value;
}

/** { gateway, topic, users } */
export const getConfig = () => ask('/api/config');
/** { desk, cursor }: a user's state, and the id from which the stream goes on. */
export const getDesk = (user) => ask(`/api/desk?user=${encodeURIComponent(user)}`);
export const getTicket = async (user) => (await ask('/api/ticket', { user })).ticket;
/** Publishes to a user or to `all`; the ids of the events. */
export const publish = async (to, type, count) => (await ask('/api/publish', { to, type, count })).ids;
