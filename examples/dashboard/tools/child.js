// A child process that ends with this one, however this one ends: also with kill -9.
import { spawn } from 'node:child_process';
import { once } from 'node:events';

// The shell holds the other end of a pipe. When this process is gone the pipe ends, and the shell ends the program.
const KEEPER = `
exec 3<&0
"$@" 3<&- </dev/null & program=$!
{ cat <&3 >/dev/null; kill "$program" 2>/dev/null; } &
wait "$program"`;

export class Child {
  #child;

  constructor(program, args, env = process.env) {
    this.program = program;
    this.output = '';
    // In a group of its own: a Ctrl-C is for this process, which then ends the others in their order.
    this.#child = spawn('sh', ['-c', KEEPER, 'sh', program, ...args], { env, stdio: 'pipe', detached: true });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        this.output = (this.output + text).slice(-20_000);
        this.#child.emit('printed');
      });
    }
    this.ended = once(this.#child, 'exit');
    this.ended.then(() => this.#child.emit('printed'));
  }

  /** Resolves to what `find` makes of the output, once that is something. */
  async printed(find) {
    for (;;) {
      const found = find(this.output);
      if (found) return found;
      if (this.#child.exitCode !== null) throw new Error(`${this.program} ended:\n${this.output}`);
      await once(this.#child, 'printed');
    }
  }

  end() {
    this.#child.stdin.destroy();
    return this.ended;
  }
}
