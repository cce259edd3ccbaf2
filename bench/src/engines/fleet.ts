import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Site } from './contender.ts'
import type { Order } from './server.ts'

const program = fileURLToPath(new URL('server.js', import.meta.url))

/** A server in a process of its own. */
export class OtherServer {
  readonly #process: ChildProcess

  private constructor(child: ChildProcess) {
    this.#process = child
  }

  static async start(contender: string, site: Site): Promise<OtherServer> {
    const server = new OtherServer(fork(program, [contender, JSON.stringify(site)], { execArgv: [] }))
    await server.#answer()
    return server
  }

  async ask<Answer>(order: Order): Promise<Answer> {
    const answer = this.#answer()
    this.#process.send(order)
    return (await answer) as Answer
  }

  end(): void {
    this.#process.disconnect()
  }

  async #answer(): Promise<unknown> {
    const over = new AbortController()
    const options = { signal: over.signal }
    try {
      const [answer] = await Promise.race([
        once(this.#process, 'message', options),
        once(this.#process, 'exit', options).then(([code]) => {
          throw new Error(`A server ended with ${code} before it answered.`)
        }),
      ])
      if (answer.failed) throw new Error(answer.failed)
      return answer
    } finally {
      over.abort()
    }
  }
}
