import { EventBuffer, type EventBufferOptions } from './buffer.ts'
import { systemClock } from './clock.ts'
import { newEpoch } from './cursor.ts'
import { SpillwayError } from './errors.ts'
import { type PendingBatch, StoredBatch } from './event.ts'
import type { Log, LogPage } from './log.ts'

/** What a {@link memoryLog} keeps; the defaults are those of {@link EventBuffer}. */
export type MemoryLogOptions = Pick<EventBufferOptions<StoredBatch>, 'capacity' | 'maxBytes' | 'maxAge' | 'clock'>

/** A log that ends with its process: each has an epoch of its own, so that readers of an earlier one are told. Throws `CONFIG`. */
export function memoryLog({ clock = systemClock, ...limits }: MemoryLogOptions = {}): Log {
  return new MemoryLog(
    newEpoch(clock.now()),
    new EventBuffer<StoredBatch>({ ...limits, clock, sizeOf: (batch) => batch.bytes }),
  )
}

class MemoryLog implements Log {
  readonly epoch: string
  readonly #kept: EventBuffer<StoredBatch>
  readonly #listeners = new Set<(batch: StoredBatch) => void>()
  #untold: StoredBatch[] = []
  #telling = false

  constructor(epoch: string, kept: EventBuffer<StoredBatch>) {
    this.epoch = epoch
    this.#kept = kept
  }

  get floor(): number {
    return this.#kept.floor
  }

  get last(): number {
    return this.#kept.newestIndex
  }

  async append(pending: readonly PendingBatch[]): Promise<readonly number[]> {
    if (this.#kept.error) throw new SpillwayError('CLOSED', 'The log was closed. The events were not stored.')
    const batches = this.#number(pending)
    for (const batch of batches) this.#kept.check(batch)
    // All are stored before anybody is told of the first: a listener may append, and must not get in between.
    for (const batch of batches) this.#kept.append(batch)
    this.#untold.push(...batches)
    this.#tell()
    return batches.map(({ index }) => index)
  }

  async read(after: number, limit: number): Promise<LogPage> {
    const kept = this.#kept
    kept.trim()
    const batches: StoredBatch[] = []
    for (let place = kept.placeAtOrAfter(after + 1); batches.length < limit; place++) {
      const batch = kept.at(place)
      if (!batch) break
      batches.push(batch)
    }
    return { floor: kept.floor, batches }
  }

  follow(listener: (batch: StoredBatch) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async close(): Promise<void> {
    this.#listeners.clear()
    this.#kept.close()
  }

  #tell(): void {
    if (this.#telling) return
    this.#telling = true
    for (const batch of this.#untold) {
      for (const listener of this.#listeners) {
        try {
          listener(batch)
        } catch (error) {
          // It is stored: a listener's mistake must reach its author, not the publisher.
          void Promise.reject(error)
        }
      }
    }
    this.#untold = []
    this.#telling = false
  }

  #number(pending: readonly PendingBatch[]): StoredBatch[] {
    let { last } = this
    return pending.map((batch) => {
      last = nextIndex(last, batch.index)
      return new StoredBatch(this.epoch, last, batch)
    })
  }
}

/** The index after `last`, or `wanted` if it is above. Throws `INDEX_ORDER`. */
export function nextIndex(last: number, wanted: number = last + 1): number {
  if (wanted > last && wanted <= Number.MAX_SAFE_INTEGER) return wanted
  const advice = last < Number.MAX_SAFE_INTEGER ? 'Publish with a larger index or omit it.' : 'This history is full.'
  throw new SpillwayError('INDEX_ORDER', `Index ${wanted} is not above the log's last index ${last}. ${advice}`)
}
