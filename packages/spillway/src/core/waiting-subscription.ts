import { SpillwayError } from './errors.ts'
import type { Batch } from './event.ts'
import type { Signal } from './signal.ts'
import type { Subscription } from './subscription.ts'

interface Waiting {
  resolve(batch: Batch): void
  reject(reason: unknown): void
}

/** What subscriptions have in common whatever they read: the one `next` that may wait for what `take` does not have yet. */
export abstract class WaitingSubscription implements Subscription {
  abstract readonly ready: Promise<void>
  abstract readonly cursor: string
  abstract readonly lag: number
  abstract readonly closed: boolean
  #waiting: Waiting | undefined
  #signal: Signal | undefined

  abstract take(): Batch | undefined

  /** Ends the subscription with `error`, at once. Harmless when done twice. */
  abstract fail(error: unknown): void

  next({ signal }: { signal?: Signal } = {}): Promise<Batch> {
    if (signal?.aborted) return Promise.reject(signal.reason)
    if (this.#waiting) {
      return Promise.reject(
        new SpillwayError('INVALID', 'next() was called while another waits. Ask for one batch at a time.'),
      )
    }
    try {
      const batch = this.takeAtOnce()
      if (batch) return Promise.resolve(batch)
    } catch (error) {
      return Promise.reject(error)
    }
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject }
      this.#signal = signal
      signal?.addEventListener('abort', this.#abort)
      try {
        this.waitBegan()
      } catch (error) {
        this.rejectWait(error)
      }
    })
  }

  close(): void {
    this.fail(new SpillwayError('CLOSED', 'The subscription was closed by its reader.', { cursor: this.cursor }))
  }

  /** What `for await` asks: it ends without an error once its reader has closed it. */
  [Symbol.asyncIterator](): AsyncIterator<Batch, undefined> {
    return {
      next: () => this.#nextResult(),
      return: async () => {
        this.close()
        return { done: true, value: undefined }
      },
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
  }

  /** The wait of `next`, while it waits: another one each time. */
  protected get waiting(): object | undefined {
    return this.#waiting
  }

  /** The signal that `next` was given, while it waits. */
  protected get signal(): Signal | undefined {
    return this.#signal
  }

  /** What `next` need not wait for. */
  protected takeAtOnce(): Batch | undefined {
    return this.take()
  }

  /** Called when `next` begins to wait. What it throws ends that wait. */
  protected waitBegan(): void {}

  /** Called when its signal has ended a wait. */
  protected waitAborted(): void {}

  /** Gives whoever waits what `take` finds, if it finds something, or throws. */
  protected deliver(): void {
    try {
      const batch = this.take()
      if (batch) this.resolveWait(batch)
    } catch (error) {
      this.rejectWait(error)
    }
  }

  protected resolveWait(batch: Batch): void {
    this.#settle()?.resolve(batch)
  }

  protected rejectWait(error: unknown): void {
    this.#settle()?.reject(error)
  }

  /** As `next`, but what is there already takes one promise, not three: a reader that catches up has most of its batches so. */
  #nextResult(): Promise<IteratorResult<Batch, undefined>> {
    try {
      const batch = this.#waiting ? undefined : this.takeAtOnce()
      return batch ? Promise.resolve(toResult(batch)) : this.next().then(toResult, toEnd)
    } catch (error) {
      return Promise.resolve(error).then(toEnd)
    }
  }

  readonly #abort = (): void => {
    this.rejectWait(this.#signal?.reason)
    this.waitAborted()
  }

  /** Ends the wait, and gives back who waited. */
  #settle(): Waiting | undefined {
    const waiting = this.#waiting
    this.#signal?.removeEventListener('abort', this.#abort)
    this.#signal = undefined
    this.#waiting = undefined
    return waiting
  }
}

const toResult = (value: Batch): IteratorResult<Batch, undefined> => ({ done: false, value })

function toEnd(error: unknown): IteratorResult<Batch, undefined> {
  if (error instanceof SpillwayError && error.code === 'CLOSED') return { done: true, value: undefined }
  throw error
}
