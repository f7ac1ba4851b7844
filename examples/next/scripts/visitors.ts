/** A number of visitors that changes like a real one. */
export function visitors() {
  const minutes = Date.now() / 60_000;
  return Math.round(60 + 20 * Math.sin(minutes) + 10 * Math.random());
}
