// Programs that a scene starts: they say on stdout where they are, and end with the scene.
import { spawn } from "node:child_process";

/** How long whatever a test waits for may take: a machine that checks is slow and has other work. */
export const PATIENCE = 120;

/** Waits for a condition, with a deadline in seconds. */
export async function until(what, condition, seconds = PATIENCE) {
  const deadline = performance.now() + seconds * 1000;
  let problem;
  for (;;) {
    try {
      const found = await condition();
      if (found) return found;
    } catch (error) {
      problem = error;
    }
    if (performance.now() > deadline)
      throw new Error(`not within ${seconds} s: ${what}`, { cause: problem });
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** A program, and what it has said. */
export class Program {
  log = "";
  words = {};

  constructor(program, args, options = {}) {
    this.name = program.split("/").pop();
    // What is left behind by a test that is killed ends with it.
    this.child = spawn("setpriv", ["--pdeathsig", "KILL", program, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      ...options,
    });
    this.ended = new Promise((resolve) => this.child.once("close", resolve));
    this.child.once("error", (error) => (this.log += String(error)));
    let rest = "";
    this.child.stdout.setEncoding("utf8").on("data", (text) => {
      this.note(text);
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const [, key, value] = /^([A-Z_]+)=(.*)$/.exec(line) ?? [];
        if (key) this.words[key] = value;
      }
    });
    this.child.stderr.setEncoding("utf8").on("data", (text) => this.note(text));
  }

  note(text) {
    this.log = (this.log + text).slice(-20_000);
  }

  get running() {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** What it announces on stdout as KEY=value. */
  announced(key) {
    return until(`${this.name} announces ${key}`, () => {
      if (!this.running && !(key in this.words)) throw new Error(`${this.name} ended`);
      return this.words[key];
    });
  }

  async kill() {
    this.child.kill("SIGKILL");
    await this.ended;
  }

  /** Lets it say goodbye and put its things away. */
  async end() {
    if (!this.running) return;
    this.child.kill("SIGTERM");
    const timer = setTimeout(() => this.child.kill("SIGKILL"), 10_000);
    await this.ended;
    clearTimeout(timer);
  }
}
