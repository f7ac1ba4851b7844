// A child process that ends with this process, even if this process is killed with SIGKILL.
import { spawn } from 'node:child_process';
import { once } from 'node:events';

// The shell reads from a pipe. When this process ends, the pipe closes and the shell kills the
// program.
const SUPERVISOR = `
exec 3<&0
"$@" 3<&- </dev/null & program=$!
{ cat <&3 >/dev/null; kill "$program" 2>/dev/null; } &
wait "$program"`;

export class Child {
  #child;

  constructor(program, args, env = process.env, cwd = undefined) {
    this.program = program;
    this.output = '';
    // In its own process group, so that Ctrl-C only reaches this process, which stops the others in
    // order.
    const command = ['-c', SUPERVISOR, 'sh', program, ...args];
    this.#child = spawn('sh', command, { env, cwd, stdio: 'pipe', detached: true });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        this.output = (this.output + text).slice(-20_000);
        this.#child.emit('printed');
      });
    }
    this.exited = once(this.#child, 'exit');
    this.exited.then(() => this.#child.emit('printed'));
  }

  /** Resolves to the first truthy result of `find(output)`. Rejects if the program exits before. */
  async printed(find) {
    for (;;) {
      const found = find(this.output);
      if (found) return found;
      if (this.#child.exitCode !== null) throw new Error(`${this.program} exited:\n${this.output}`);
      await once(this.#child, 'printed');
    }
  }

  stop() {
    this.#child.stdin.destroy();
    return this.exited;
  }
}
