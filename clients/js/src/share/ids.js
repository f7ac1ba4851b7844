/**
 * Whether an id lies behind another one. To everyone else ids are opaque; a tab must know whether it is ahead of the group's connection.
 * @param {string} id
 * @param {string | undefined} other none: everything lies behind it
 * @returns {boolean} also true where one of them is no id of the gateway: rather an event too many than one too few
 */
export function after(id, other = '') {
  const [ms = NaN, seq = NaN] = id.split('-').map(Number);
  const [otherMs = NaN, otherSeq = NaN] = other.split('-').map(Number);
  return !(ms < otherMs || (ms === otherMs && seq <= otherSeq));
}
