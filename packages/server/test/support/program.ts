import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import type { TestContext } from 'node:test'

const bin = path.join(import.meta.dirname, '../../src/bin.js')

/** What a program has written to one of its outputs so far, and the waiting for more. */
export class Output {
  text = ''
  ended = false
  #wake: (() => void)[] = []

  constructor(stream: NodeJS.ReadableStream) {
    stream.setEncoding('utf8')
    stream.on('data', (text: string) => {
      this.text += text
      this.#changed()
    })
    stream.on('end', () => {
      this.ended = true
      this.#changed()
    })
  }

  /** The whole lines. */
  get lines(): string[] {
    return this.text.split('\n').slice(0, -1)
  }

  /** Waits for a line that matches and gives its match. Rejects when the output ends without one. */
  async line(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      for (const line of this.lines) {
        const match = pattern.exec(line)
        if (match) return match
      }
      if (this.ended) throw new Error(`No line matches ${pattern}:\n${this.text}`)
      await this.#change()
    }
  }

  /** Waits until there are `count` lines. */
  async first(count: number): Promise<string[]> {
    while (this.lines.length < count) {
      if (this.ended) throw new Error(`Fewer than ${count} lines:\n${this.text}`)
      await this.#change()
    }
    return this.lines.slice(0, count)
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#wake.push(resolve))
  }

  #changed(): void {
    const wake = this.#wake
    this.#wake = []
    for (const resolve of wake) resolve()
  }
}

/** `spillway` as a process of its own. It is ended with its test. */
export class Program {
  readonly stdout: Output
  readonly stderr: Output
  /** Resolves with the exit code, or the name of the signal. */
  readonly ended: Promise<number | NodeJS.Signals>
  readonly child: ChildProcess

  constructor(t: TestContext, args: readonly string[], { env = {}, input, cwd }: ProgramOptions = {}) {
    const { SPILLWAY_URL: _url, SPILLWAY_TOKEN: _token, SPILLWAY_LOG: _log, ...inherited } = process.env
    const child = spawn(process.execPath, [bin, ...args], { cwd, env: { ...inherited, ...env } })
    this.child = child
    this.stdout = new Output(child.stdout)
    this.stderr = new Output(child.stderr)
    this.ended = once(child, 'close').then(([code, signal]) => code ?? signal)
    // A program that ends early does not want its input.
    child.stdin.on('error', () => {})
    if (input !== null) child.stdin.end(input ?? '')
    t.after(async () => {
      child.kill('SIGKILL')
      await this.ended
    })
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal)
  }
}

export interface ProgramOptions {
  env?: Record<string, string>
  cwd?: string
  /** Standard input. `null`: left open. Default: empty. */
  input?: string | Uint8Array | null
}

/** Runs `spillway` to its end. */
export async function run(
  t: TestContext,
  args: readonly string[],
  options?: ProgramOptions,
): Promise<{ code: number | NodeJS.Signals; stdout: string; stderr: string }> {
  const program = new Program(t, args, options)
  const code = await program.ended
  return { code, stdout: program.stdout.text, stderr: program.stderr.text }
}

/** Starts `spillway serve`, on any free port and in memory unless `args` say otherwise, and waits until it listens. */
export async function serve(t: TestContext, ...args: string[]): Promise<{ server: Program; url: string }> {
  const port = args.includes('--port') ? [] : ['--port', '0']
  const memory = args.includes('--data') || args.includes('--log') ? [] : ['--memory']
  const { SPILLWAY_TEST_THREADS: count } = process.env
  const threads = count === undefined ? [] : ['--threads', count]
  const server = new Program(t, ['serve', ...port, ...memory, ...threads, ...args])
  const [, url = ''] = await server.stdout.line(/(http:\/\/[^"\s]+)/)
  return { server, url }
}
