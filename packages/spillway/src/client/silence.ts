import { SpillwayError } from '../core/errors.ts'
import { host } from './runtime.ts'

/** Milliseconds until a server must have answered, and have sent the first message. */
export const firstWithin = 10_000

/**
 * Gives up what waits for a peer that says nothing for too long: all waits together may take `ms`, and each by itself so much
 * as `relax` says, from then on.
 */
export class SilenceLimit {
  #ms: number
  readonly #firstUntil: number
  #isFirst = true
  readonly #controller = new host.AbortController()
  #giveUp: ((reason: unknown) => void) | undefined

  constructor(ms: number) {
    this.#ms = ms
    this.#firstUntil = host.performance.now() + ms
  }

  /** From here on each wait may take `ms`. */
  relax(ms: number): void {
    this.#ms = ms
    this.#isFirst = false
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
    const ms = this.#isFirst ? Math.max(0, this.#firstUntil - host.performance.now()) : this.#ms
    const timer = host.setTimeout(() => {
      const what = this.#isFirst ? 'No message' : 'Nothing'
      this.abort(new SpillwayError('UNREACHABLE', `${what} came for ${this.#ms} ms.`))
    }, ms)
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
