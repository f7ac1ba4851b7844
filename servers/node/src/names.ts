import { SseError } from './errors.js';

const MAX_NAME_BYTES = 256;
const NAME_RULE = '1 to 256 printable ASCII characters without space, comma and * ? [ ] { } \\';
const MAX_TOPICS = 256;
const MAX_TAGS = 8;
const MAX_FILTER_VALUES = 64;
const MAX_TAG_BYTES = 256;

/** Shows the beginning of a value in an error. */
export const shown = (value: unknown) => JSON.stringify(value)?.slice(0, 80) ?? String(value);

export function isName(value: unknown): value is string {
  return typeof value === 'string' && value.length <= MAX_NAME_BYTES &&
    /^[!-~]+$/.test(value) && !/[,*?[\]{}\\]/.test(value);
}

export function checkUser(user: unknown): asserts user is string {
  if (!isName(user))
    throw new SseError('bad-user', `user must have ${NAME_RULE} (got ${shown(user)})`);
}

/** `others`: the members that are left when those that exist were removed. */
export function rejectOthers(others: object) {
  const [name] = Object.keys(others);
  if (name !== undefined)
    throw new SseError('bad-option', `the option ${shown(name)} does not exist`);
}

export function checkTopics(topics: unknown) {
  const isPattern = (topic: unknown) =>
    isName(topic) || topic === '*' ||
    (typeof topic === 'string' && topic.endsWith('*') && isName(topic.slice(0, -1)));
  if (!Array.isArray(topics) || topics.length > MAX_TOPICS || !topics.every(isPattern))
    throw new SseError('bad-topics', 'topics must be a list of at most 256 names, `prefix*` or `*`;'
      + ` a name has ${NAME_RULE} (got ${shown(topics)})`);
}

export function checkFilter(filter: unknown) {
  const isValue = (value: unknown) =>
    typeof value === 'string' && /^[^\s\p{Cc}]+$/u.test(value) &&
    Buffer.byteLength(value) <= MAX_TAG_BYTES;
  const isTag = ([name, values]: [string, unknown]) =>
    /^[\w.-]{1,64}$/.test(name) &&
    Array.isArray(values) && values.length >= 1 && values.length <= MAX_FILTER_VALUES &&
    values.every(isValue);
  const tags = typeof filter === 'object' && filter !== null ? Object.entries(filter) : [];
  if (tags.length < 1 || tags.length > MAX_TAGS || !tags.every(isTag))
    throw new SseError('bad-filter', 'filter must have 1 to 8 tags, each with a list of 1 to 64'
      + ` values without spaces, such as { region: ['eu'] } (got ${shown(filter)})`);
}

/**
 * The key of a channel in Redis. A broadcast's key names the slot that all broadcasts share, which
 * a cluster requires.
 */
export function channelKey(channel: string, prefix: string): string {
  const [, user] = /^user:(.*):events$/s.exec(channel) ?? [];
  if (isName(user)) return `${prefix}${channel}`;
  const [, topic] = /^(?:broadcast|\{broadcast\}):(.*)$/s.exec(channel) ?? [];
  if (isName(topic)) return `{${prefix}broadcast}:${topic}`;
  throw new SseError('bad-channel', 'the channel must be user:<id>:events or broadcast:<topic>,'
    + ` with ${NAME_RULE} (got ${shown(channel)})`);
}
