import { SpillwayError } from '../core/errors.ts'
import { host } from './runtime.ts'

/** Milliseconds until a server must have answered, and have sent the first message. */
export const firstWithin = 10_000

/** Gives up what waits for a peer that says nothing for too long. */
export class SilenceLimit {
  ms: number
  readonly #controller = new host.AbortController()
  #giveUp: ((reason: unknown) => void) | undefined

  constructor(ms: number) {
    this.ms = ms
  }

  get signal(): unknown {
    return this.#controller.signal
  }

  abort(reason?: unknown): void {
    this.#controller.abort(reason)
    // Not every runtime ends a body that is being read when its request is aborted.
    this.#giveUp?.(this.#controller.signal.reason)
  }

  async during<T>(work: () => Promise<T>): Promise<T> {
    const timer = host.setTimeout(() => {
      this.abort(new SpillwayError('UNREACHABLE', `Nothing came for ${this.ms} ms.`))
    }, this.ms)
    try {
      return await new Promise<T>((resolve, reject) => {
        this.#giveUp = reject
        work().then(resolve, reject)
      })
    } finally {
      this.#giveUp = undefined
      host.clearTimeout(timer)
    }
  }
}
