/** Why a ticket was not issued or an event was not published. */
export class SseError extends Error {
  override readonly name = 'SseError';

  /**
   * `code`: a short name of the problem that does not change, for example `too-large`.
   * `retriable`: whether the same call may succeed later, and cannot publish the event twice.
   */
  constructor(
    readonly code: string,
    message: string,
    readonly retriable = false,
    options?: { cause: unknown },
  ) {
    super(message, options);
  }
}

/** Codes of the gateway's function that end by themselves. Nothing was published. */
const TEMPORARY_CODES = ['not-adopted', 'too-often'];

/** First words of Redis errors that end by themselves. The command was not executed. */
const TEMPORARY =
  /^(?:MOVED|ASK|TRYAGAIN|CLUSTERDOWN|LOADING|MASTERDOWN|NOREPLICAS|READONLY|BUSY) /;

/**
 * The error of a command that failed in a Redis client. `isRepeatable`: the command may be sent
 * again although it is unknown whether it was executed.
 */
export function fromRedis(cause: unknown, isRepeatable: boolean): SseError {
  if (cause instanceof SseError) return cause;
  const text = cause instanceof Error ? cause.message : String(cause);
  const error = (code: string, message: string, retriable: boolean) =>
    new SseError(code, message, retriable, { cause });
  const [, code, reason] = /^SSE ([a-z0-9-]+): ([^]*)$/.exec(text) ?? [];
  if (code && reason) return error(code, reason, TEMPORARY_CODES.includes(code));
  if (/^ERR Function not found/.test(text)) {
    const message = 'the function of the gateway is missing: no gateway has connected to this'
      + ' Redis server yet, or key_prefix is not its redis.key_prefix';
    return error('not-loaded', message, true);
  }
  if (TEMPORARY.test(text)) return error('redis-away', text, true);
  if (/^[A-Z]{2,} /.test(text)) return error('redis-error', text, false);
  if (cause instanceof TypeError) throw cause;
  return error('redis-away', `Redis has not replied: ${text}`, isRepeatable);
}
