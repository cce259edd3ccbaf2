import { type PlainSpillwayError, SpillwayError, wrongOption } from '../core/errors.ts'

/** One end of a `MessageChannel`, whose other end another thread has. Node, Bun, Deno and browsers have it. */
export interface SharedPort {
  postMessage(message: unknown): void
  addEventListener(type: string, listener: (event: { readonly data?: unknown }) => void): void
  start(): void
  close(): void
  /** Node and Deno: it does not keep its thread alive. */
  unref?(): void
}

/** Throws `CONFIG` for what is no port. */
export function checkPort(port: SharedPort): void {
  const { postMessage, addEventListener, start } = (port ?? {}) as Partial<SharedPort>
  if ([postMessage, addEventListener, start].every((method) => typeof method === 'function')) return
  throw wrongOption('port', 'a MessagePort', port)
}

/** An answer to call `id`, or what went wrong. */
type Reply =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: PlainSpillwayError }

interface Call {
  readonly id: number
  readonly question: unknown
}

/** Asks the thread at the other end of a port, and waits for its answers. */
export class Caller {
  readonly #port: SharedPort
  readonly #waiting = new Map<number, { resolve(value: unknown): void; reject(reason: unknown): void }>()
  #lastId = 0
  #failure: (() => SpillwayError) | undefined

  /** `onEnd`: the other end was closed, or its thread has ended. */
  constructor(port: SharedPort, onEnd: () => void) {
    this.#port = port
    port.addEventListener('message', ({ data }) => this.#take(data as Reply))
    port.addEventListener('close', onEnd)
    port.start()
  }

  ask(question: unknown): Promise<unknown> {
    if (this.#failure) return Promise.reject(this.#failure())
    return new Promise((resolve, reject) => {
      this.#lastId++
      this.#waiting.set(this.#lastId, { resolve, reject })
      this.#port.postMessage({ id: this.#lastId, question } satisfies Call)
    })
  }

  /** Rejects what is asked from now on with `failure`, and what waits with `lost`, by default that nobody knows what came of it. */
  end(failure: () => SpillwayError, lost: () => SpillwayError = unanswered): void {
    this.#failure ??= failure
    for (const { reject } of this.#waiting.values()) reject(lost())
    this.#waiting.clear()
    this.#port.close()
  }

  #take(reply: Reply): void {
    const waiting = this.#waiting.get(reply.id)
    this.#waiting.delete(reply.id)
    if ('error' in reply) waiting?.reject(SpillwayError.from(reply.error))
    else waiting?.resolve(reply.value)
  }
}

/** Answers those who ask at the other end of `port` with what `answer` gives. `onEnd`: that end is gone. */
export function answerCalls(port: SharedPort, answer: (question: never) => unknown, onEnd: () => void): void {
  port.addEventListener('message', async ({ data }) => {
    const { id, question } = data as Call
    try {
      port.postMessage({ id, value: await answer(question as never) } satisfies Reply)
    } catch (error) {
      port.postMessage({ id, error: failure(error).toJSON() } satisfies Reply)
    }
  })
  port.addEventListener('close', onEnd)
  port.start()
  // Those who may ask are threads, which keep the process alive themselves.
  port.unref?.()
}

function unanswered(): SpillwayError {
  return new SpillwayError(
    'LOG_FAILED',
    'The thread that owns the log ended before it answered. What was to be appended may have been stored.',
  )
}

function failure(error: unknown): SpillwayError {
  if (error instanceof SpillwayError) return error
  return new SpillwayError('LOG_FAILED', 'The log failed in the thread that owns it.', { cause: error })
}
