import type { TestContext } from 'node:test'
import { freePort } from '@spillway/engines'
import { Program } from '../program.ts'

/** A `spillway serve` that can be killed and started again under the same address. It is ended with its test. */
export class Server {
  readonly name: string
  readonly url: string
  readonly #t: TestContext
  readonly #args: readonly string[]
  #program: Program | undefined

  private constructor(t: TestContext, name: string, port: number, args: readonly string[]) {
    this.#t = t
    this.name = name
    this.url = `http://127.0.0.1:${port}`
    this.#args = ['serve', '--port', String(port), ...args]
  }

  /** Starts one, with `args` beside its port. */
  static async start(t: TestContext, name: string, args: readonly string[]): Promise<Server> {
    const server = new Server(t, name, await freePort(), args)
    await server.start()
    return server
  }

  /** What it wrote since it was last started. */
  get output(): string {
    return `${this.#program?.stdout.text ?? ''}${this.#program?.stderr.text ?? ''}`
  }

  /** Starts it, and resolves once it listens. */
  async start(): Promise<void> {
    this.#program = new Program(this.#t, this.#args)
    await this.#program.stdout.line(/http:\/\//).catch((cause) => {
      throw new Error(`${this.name} did not start:\n${this.output}`, { cause })
    })
  }

  /** Ends it as a crash does. */
  async kill(): Promise<void> {
    this.#program?.kill('SIGKILL')
    await this.#program?.ended
  }
}
