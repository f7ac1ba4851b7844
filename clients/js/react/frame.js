/** Maximum wait for a frame, in ms: a hidden page draws none, but the backlog must not grow. */
const HIDDEN = 1000;

/**
 * Calls back once, before the next frame is drawn. Uses a timer in a hidden page or if the
 * environment has no frames.
 * @param {() => void} callback
 * @returns {() => void} cancels the call
 */
export function nextFrame(callback) {
  const run = () => { cancel(); callback(); };
  const frame = globalThis.requestAnimationFrame?.(run);
  const timer = setTimeout(run, frame === undefined ? 16 : HIDDEN);
  const cancel = () => {
    clearTimeout(timer);
    if (frame !== undefined) cancelAnimationFrame(frame);
  };
  return cancel;
}
