/** The longest wait for a frame: a hidden page draws none, and must not fall behind without end. */
const HIDDEN = 1000;

/**
 * Calls back once, before the next frame is drawn; in a hidden page (or where there are no frames) by the clock.
 * @param {() => void} callback
 * @returns {() => void} takes the order back
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
