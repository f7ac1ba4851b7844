// Who is online: an initial state, and what has changed since.

/** User -> online. @typedef {ReadonlyMap<string, boolean>} Changes */
/** An event, or `null`: a gap, which may hide others. @typedef {[string, boolean] | null} Change */

/** @type {Changes} */
export const NONE = new Map();

/**
 * Adds changes in their order. After a gap, earlier ones say nothing about a state that is loaded
 * later.
 * @param {Changes} before
 * @param {Change[]} items
 * @returns {Changes}
 */
export function addChanges(before, items) {
  const gap = items.lastIndexOf(null);
  const later = /** @type {[string, boolean][]} */ (items.slice(gap + 1));
  return new Map([...(gap < 0 ? before : NONE), ...later]);
}

/**
 * The users who are online.
 * @param {Iterable<string> | undefined} initial
 * @param {Changes} changes
 * @returns {ReadonlySet<string>}
 */
export function onlineUsers(initial, changes) {
  const users = new Set(initial);
  for (const [user, isOnline] of changes) {
    if (isOnline) users.add(user);
    else users.delete(user);
  }
  return users;
}

/** Whether a gap may hide presence events. @param {{ channels: string[] }} gap */
export const hidesPresence = ({ channels }) =>
  !channels.length || channels.includes('broadcast:presence');
