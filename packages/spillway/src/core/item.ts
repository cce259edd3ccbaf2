import type { EventBuffer } from './buffer.ts'
import type { Signal } from './signal.ts'

/** One batch in an {@link EventBuffer}, or the sentinel before the first, or the error that ended it. */
export class BufferItem<T extends { readonly index: number }> {
  /** Counts appends and does not skip. A sentinel stands on the place before the first batch. */
  readonly place: number
  /** The batch's index; 0 for a sentinel or an error. */
  readonly index: number
  /** When the batch was appended, in Unix milliseconds. */
  readonly createdAt: number
  /** `undefined` for a sentinel or an error. */
  readonly batch: T | undefined
  /** Set on the item that ended the buffer. */
  readonly error: Error | undefined
  /** The index that a reader which stands here has seen last. */
  readonly seen: number
  readonly #buffer: EventBuffer<T>

  /** Items are made by their buffer. */
  constructor(buffer: EventBuffer<T>, place: number, index: number, createdAt: number, batch?: T, error?: Error) {
    this.#buffer = buffer
    this.place = place
    this.index = index
    this.createdAt = createdAt
    this.batch = batch
    this.error = error
    this.seen = batch ? index : buffer.floor
  }

  /**
   * The item after this one; waits at the tail. All who wait get the same object.
   * Rejects with the signal's reason, even if an item is ready; with `LAGGED` if the next batch was dropped; with the
   * error that ended the buffer.
   */
  next({ signal }: { signal?: Signal } = {}): Promise<BufferItem<T>> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason)
      const item = this.nextNoBlock()
      if (item?.error) return reject(item.error)
      if (item) return resolve(item)
      if (this.#buffer.error) return reject(this.#buffer.error)
      const abort = () => {
        this.#buffer.unpark(waiter)
        signal?.removeEventListener('abort', abort)
        reject(signal?.reason)
      }
      const waiter = {
        place: this.place,
        settle: () => {
          signal?.removeEventListener('abort', abort)
          resolve(this.next())
        },
      }
      signal?.addEventListener('abort', abort)
      this.#buffer.park(waiter)
    })
  }

  /** The item after this one, an error item too; `undefined` at the tail. Throws `LAGGED` if the next batch was dropped. */
  nextNoBlock(): BufferItem<T> | undefined {
    return this.#buffer.successor(this)
  }
}
