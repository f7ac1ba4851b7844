// Commands that the user has given and the server has not confirmed. They are in localStorage, so
// they outlive a reload, and one tab at a time sends them, in their order.

export type Command = { id: string; url: string; body: Record<string, unknown> };

/** `pending`: the commands of all tabs, oldest first. `refused`: the last one, if it failed. */
type State = { pending: Command[]; refused?: Command };

export const EMPTY: State = { pending: [] };

const TIMEOUT = 10_000;
const MIN_DELAY = 1000;
const MAX_DELAY = 30_000;
/** Refused for now: signed out, timeout, too many requests. Status 5xx is retried as well. */
const RETRIED = [401, 408, 429];

export class Outbox {
  #prefix: string;
  #state: State = EMPTY;
  #listeners = new Set<() => void>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(userId: string) {
    this.#prefix = `outbox:${userId}:`;
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
  send(url: string, body: Command['body']) {
    const command: Command = { id: crypto.randomUUID(), url, body };
    // One key for each command: tabs cannot change a common value without losing updates.
    localStorage.setItem(`${this.#prefix}${Date.now()}:${command.id}`, JSON.stringify(command));
    this.#read();
    this.flush();
  }

  flush = () => this.#flush(MIN_DELAY);

  #open() {
    window.addEventListener('storage', this.#read);
    window.addEventListener('online', this.flush);
    this.#read();
    this.flush();
  }

  #close() {
    window.removeEventListener('storage', this.#read);
    window.removeEventListener('online', this.flush);
    clearTimeout(this.#timer);
  }

  #flush(delay: number) {
    clearTimeout(this.#timer);
    void navigator.locks.request(this.#prefix, async () => {
      for (const [key, command] of this.#stored()) {
        if (await this.#isSettled(command)) {
          localStorage.removeItem(key);
          this.#read();
          continue;
        }
        clearTimeout(this.#timer);
        const next = Math.min(2 * delay, MAX_DELAY);
        this.#timer = setTimeout(() => this.#flush(next), delay);
        return;
      }
    });
  }

  async #isSettled(command: Command) {
    const response = await fetch(command.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ ...command.body, command: command.id }),
      signal: AbortSignal.timeout(TIMEOUT),
    }).catch(() => undefined);
    if (!response || response.status >= 500 || RETRIED.includes(response.status)) return false;
    this.#state = { ...this.#state, refused: response.ok ? undefined : command };
    return true;
  }

  #read = () => {
    this.#state = { ...this.#state, pending: this.#stored().map(([, command]) => command) };
    for (const listener of this.#listeners) listener();
  };

  #stored(): [string, Command][] {
    return Object.entries<string>(localStorage)
      .filter(([key]) => key.startsWith(this.#prefix))
      .sort()
      .map(([key, text]) => [key, JSON.parse(text)]);
  }
}
