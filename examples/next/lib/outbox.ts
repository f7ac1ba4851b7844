// Commands that the user has given and the server has not confirmed. They are in localStorage, so
// they outlive a reload, and one tab at a time sends them, in their order.
import { asUser } from './as-user';

/** `name` is for the user. */
type Command = { name: string; url: string; body: Record<string, unknown> };
type Stored = Command & { id: string };

/** `pending`: the commands of all tabs, oldest first. `refused`: the last one, if it failed. */
type State = { pending: Stored[]; refused?: { name: string; reason: string } };

export const EMPTY: State = { pending: [] };

const TIMEOUT = 10_000;
const MIN_DELAY = 1000;
const MAX_DELAY = 30_000;
/** Refused for now: timeout, too many requests. Status 5xx is retried as well. */
const RETRIED = [408, 429];

export class Outbox {
  #userId: string;
  #onSignedOut: () => void;
  #prefix: string;
  #state: State = EMPTY;
  #listeners = new Set<() => void>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Aborted while the outbox is closed. */
  #closed = AbortSignal.abort();
  #close = () => {};
  #lastTime = 0;

  /** `onSignedOut`: somebody else is signed in, or nobody. The commands stay. */
  constructor(userId: string, onSignedOut: () => void) {
    this.#userId = userId;
    this.#onSignedOut = onSignedOut;
    this.#prefix = `outbox:${encodeURIComponent(userId)}:`;
  }

  /** With `subscribe` for useSyncExternalStore. */
  state = () => this.#state;

  /** The first listener opens the outbox, the last one closes it. */
  subscribe = (listener: () => void) => {
    this.#listeners.add(listener);
    if (this.#listeners.size === 1) this.#open();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.#close();
    };
  };

  /** Stores a command and sends it as soon as possible. A repeated request has the same id. */
  send(command: Command) {
    const stored: Stored = { ...command, id: crypto.randomUUID() };
    // In the order of the calls, also within a millisecond.
    this.#lastTime = Math.max(Date.now(), this.#lastTime + 1);
    // One key for each command: tabs cannot change a common value without losing updates.
    localStorage.setItem(`${this.#prefix}${this.#lastTime}:${stored.id}`, JSON.stringify(stored));
    this.#read();
    this.flush();
  }

  flush = () => this.#flush(MIN_DELAY);

  #open() {
    const controller = new AbortController();
    this.#closed = controller.signal;
    this.#close = () => controller.abort();
    window.addEventListener('storage', this.#read, { signal: this.#closed });
    window.addEventListener('online', this.flush, { signal: this.#closed });
    this.#read();
    this.flush();
  }

  #flush(delay: number) {
    clearTimeout(this.#timer);
    const closed = this.#closed;
    void navigator.locks.request(this.#prefix, async () => {
      for (const [key, command] of this.#stored()) {
        if (closed.aborted) return;
        if (await this.#isSettled(command, closed)) {
          localStorage.removeItem(key);
          this.#read();
          continue;
        }
        if (closed.aborted) return;
        clearTimeout(this.#timer);
        const next = Math.min(2 * delay, MAX_DELAY);
        this.#timer = setTimeout(() => this.#flush(next), delay);
        return;
      }
    });
  }

  /** Whether the server has accepted or refused the command. */
  async #isSettled({ id, name, url, body }: Stored, closed: AbortSignal) {
    try {
      const response = await fetch(asUser(url, this.#userId), {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ ...body, command: id }),
        redirect: 'manual',
        signal: AbortSignal.any([closed, AbortSignal.timeout(TIMEOUT)]),
      });
      if (response.status >= 500 || RETRIED.includes(response.status)) return false;
      // A redirect or a page in place of JSON is a login.
      const isJson = response.headers.get('content-type')?.startsWith('application/json');
      if (response.status === 401 || !isJson) {
        this.#onSignedOut();
        return false;
      }
      const { error } = await response.json();
      this.#state = { ...this.#state, refused: response.ok ? undefined : { name, reason: error } };
      return true;
    } catch {
      return false;
    }
  }

  #read = () => {
    this.#state = { ...this.#state, pending: this.#stored().map(([, command]) => command) };
    for (const listener of this.#listeners) listener();
  };

  #stored(): [string, Stored][] {
    return Object.entries<string>(localStorage)
      .filter(([key]) => key.startsWith(this.#prefix))
      .sort()
      .map(([key, text]) => [key, JSON.parse(text)]);
  }
}
