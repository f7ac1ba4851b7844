/**
 * Whether an id is later than another one. Ids are opaque to everyone else, but a tab must know
 * whether it is ahead of the group's connection.
 * @param {string} id
 * @param {string | undefined} other undefined: every id is later
 * @returns {boolean} true if one of them is not an id of the gateway: a duplicate event is better
 *   than a lost one
 */
export function after(id, other = '') {
  const [ms = NaN, seq = NaN] = id.split('-').map(Number);
  const [otherMs = NaN, otherSeq = NaN] = other.split('-').map(Number);
  return !(ms < otherMs || (ms === otherMs && seq <= otherSeq));
}
