import { EventBuffer, type EventBufferOptions } from './buffer.ts'
import { systemClock } from './clock.ts'
import { newEpoch } from './cursor.ts'
import { digestOf } from './digest.ts'
import { SpillwayError, shown } from './errors.ts'
import { type PendingBatch, StoredBatch } from './event.ts'
import { Followers } from './followers.ts'
import { type Appended, type AppendOptions, keyWindow, type Log, type LogPage, type LogStart } from './log.ts'

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
  readonly #followers = new Followers()
  /** In the order in which they were first used. */
  readonly #keys = new Map<string, { readonly digest: number; readonly indexes: readonly number[] }>()
  #isClosed = false

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

  async append(pending: readonly PendingBatch[], { key, expected }: AppendOptions = {}): Promise<Appended> {
    if (this.#isClosed) throw new SpillwayError('CLOSED', 'The log was closed. The events were not stored.')
    const digest = key === undefined ? 0 : digestOf(pending)
    const first = key === undefined ? undefined : this.#keys.get(key)
    if (first) {
      if (first.digest !== digest) throw keyReused(key as string)
      return { indexes: first.indexes, duplicate: true }
    }
    checkExpected(expected, this.last)
    const batches = this.#number(pending)
    for (const batch of batches) this.#kept.check(batch)
    // All are stored before anybody is told of the first: a listener may append, and must not get in between.
    for (const batch of batches) this.#kept.append(batch)
    const indexes = batches.map(({ index }) => index)
    if (key !== undefined) this.#remember(key, { digest, indexes })
    this.#followers.tell(batches)
    return { indexes, duplicate: false }
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

  async locate(start: LogStart): Promise<number> {
    const kept = this.#kept
    kept.trim()
    const oldest = kept.firstPlace
    let low = oldest
    let high = kept.lastPlace + 1
    if ('last' in start) low = Math.max(high - start.last, oldest)
    else {
      while (low < high) {
        const middle = low + Math.floor((high - low) / 2)
        if (kept.timeAt(middle) < start.since) low = middle + 1
        else high = middle
      }
    }
    return low > oldest ? kept.indexAt(low - 1) : kept.floor
  }

  follow(listener: (batch: StoredBatch) => void): () => void {
    return this.#followers.add(listener, this.last)
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#kept.stopTrimming()
  }

  #remember(key: string, append: { digest: number; indexes: readonly number[] }): void {
    this.#keys.set(key, append)
    if (this.#keys.size <= keyWindow) return
    for (const oldest of this.#keys.keys()) {
      this.#keys.delete(oldest)
      return
    }
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

/** Throws `INDEX_MISMATCH` if the newest index is not the one that was expected. */
export function checkExpected(expected: number | undefined, last: number): void {
  if (expected === undefined || expected === last) return
  throw new SpillwayError(
    'INDEX_MISMATCH',
    `The newest index is ${last}, expected was ${expected}. Nothing was stored.`,
    {
      index: last,
    },
  )
}

/** The same key came with other events. */
export function keyReused(key: string): SpillwayError {
  return new SpillwayError(
    'KEY_REUSED',
    `The key ${shown(key.split('\0', 1)[0])} was used for other events. Nothing was stored.`,
  )
}
