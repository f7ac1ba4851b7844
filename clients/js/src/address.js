/**
 * Builds a URL of the gateway.
 * @param {{ url: string, topics?: readonly string[] }} options
 * @param {string} suffix appended to the path
 * @param {Record<string, string | number | null | undefined>} members query parameters; null and
 *   undefined ones are omitted
 */
export function address({ url, topics }, suffix, members) {
  const [path, query] = url.split('?');
  const params = new URLSearchParams(query);
  for (const [name, value] of Object.entries({ ...members, topics: topics?.join() })) {
    if (value != null) params.set(name, String(value));
  }
  return `${path}${suffix}?${params}`;
}
