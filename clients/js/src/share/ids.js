/** `<ms>-<seq>.<epoch>`, with the epoch in base 36. `!`: retained values are missing. */
const ID = /^(\d+)-(\d+)\.([0-9a-z]+)(!?)$/;

/**
 * The numbers that order an id, the most significant first.
 * @param {string} id
 */
function numbers(id) {
  const [, ms, seq, epoch, missing] = ID.exec(id) ?? [];
  return [parseInt(epoch ?? '', 36), Number(ms), Number(seq), Number(!missing)];
}

/**
 * Whether an id is later than another one. Ids are opaque to everyone else, but a tab must know
 * whether it is ahead of the group's connection.
 * @param {string} id
 * @param {string | undefined} other undefined: every id is later
 * @returns {boolean} true if one of them is not an id of the gateway: a duplicate event is better
 *   than a lost one
 */
export function after(id, other = '') {
  const others = numbers(other);
  for (const [at, number] of numbers(id).entries()) {
    if (number !== others[at]) return !(number < (others[at] ?? NaN));
  }
  return false;
}
