import { type AnyBroker, type From, LocalBroker } from '../core/broker.ts'
import { formatCursor } from '../core/cursor.ts'
import { SpillwayError, shown, wrongOption } from '../core/errors.ts'
import type { Gap, StoredBatch } from '../core/event.ts'
import type { BrokerSubscription } from '../core/subscription.ts'
import { batchFrame, closedFrame, eventText, gapFrame, openFrame } from '../wire/frame.ts'
import {
  createRing,
  openRing,
  type RecordType,
  type Ring,
  type RingOptions,
  readHistory,
  recordType,
  type SharedHandle,
  writeHistory,
} from './layout.ts'
import { endOf } from './reader.ts'
import { host } from './runtime.ts'
import { keyHash, topicTag } from './tags.ts'
import { Bell } from './wait.ts'
import { type RingWriter, writerOf } from './writer.ts'

export interface SharedBufferOptions extends RingOptions {
  /**
   * When readers see what was published: `turn`, the default, once for all that a broker hands over at a time; `each`,
   * after every batch; `manual`, when `flush` is called. After 64 batches or 32 KiB in any case.
   */
  flush?: 'turn' | 'each' | 'manual' | undefined
}

export interface FeedOptions {
  /** Where the feed starts in the broker's history, as for `subscribe`. Default `latest`; later feeds go on where the last one ended. */
  from?: From | undefined
  /** Whom the broker's `authorize` knows the feed by. Default `''`. */
  token?: string | undefined
}

/** A buffer that one thread fills and any number of others read. */
export interface SharedBuffer {
  /** Send it to other threads, as `workerData` or in a message: they open it with `openSharedBuffer`. */
  readonly handle: SharedHandle
  /**
   * Writes everything that `broker` publishes from here on into the buffer, and gives back the undo. It never waits for
   * readers. When the broker ends, readers get its error as their last word. One broker at a time, and always of one history.
   * Throws `CONFIG` for another kind of broker, `INVALID`, or `CLOSED` after `close`.
   */
  feed(broker: AnyBroker, options?: FeedOptions): () => void
  /** Shows readers what has been written. */
  flush(): void
  /** Ends all readers, in whatever thread, with `CLOSED` once they have read what was written. Harmless when done twice. */
  close(): void
}

/** Makes a buffer in shared memory. Throws `CONFIG` that names the option. */
export function createSharedBuffer({ flush = 'turn', ...options }: SharedBufferOptions = {}): SharedBuffer {
  checkFlush(flush)
  return new FedBuffer(createRing(options), flush)
}

/**
 * Takes over a buffer whose writing thread has ended, to go on or to close it: readers know nothing of that end and wait.
 * What was not flushed is lost; a feed goes on behind what was. Only after that thread's `exit`: two writers destroy a buffer.
 * Throws `CONFIG` that names what is wrong, or `CLOSED` if the buffer was closed.
 */
export function recoverSharedBuffer(
  handle: SharedHandle,
  { flush = 'turn' }: Pick<SharedBufferOptions, 'flush'> = {},
): SharedBuffer {
  checkFlush(flush)
  const buffer = new FedBuffer(handle, flush)
  buffer.takeOver()
  return buffer
}

function checkFlush(flush: unknown): void {
  if (flush === 'turn' || flush === 'each' || flush === 'manual') return
  throw wrongOption('flush', '"turn", "each" or "manual"', flush)
}

/** A message of this length fits every page, escaped. */
const maxMessage = 256

class FedBuffer implements SharedBuffer {
  readonly handle: SharedHandle
  readonly #ring: Ring
  readonly #bell: Bell
  readonly #writer: RingWriter
  readonly #flush: SharedBufferOptions['flush']
  readonly #encoder = new host.TextEncoder()
  #scratch = new Uint8Array(1024)
  #history: string | undefined
  #source: BrokerSubscription | undefined
  #closed = false

  constructor(handle: SharedHandle, flush: SharedBufferOptions['flush']) {
    this.handle = handle
    this.#flush = flush
    this.#ring = openRing(handle)
    const { origin, page } = this.#ring.layout
    this.#bell = new Bell(this.#ring.layout.id)
    this.#writer = writerOf(this.#ring, this.#bell)
    if (endOf(this.#ring) > origin * page) this.#history = readHistory(this.#ring)
  }

  /** Tells readers what the writer before this one did not come to tell. */
  takeOver(): void {
    this.#writer.takeOver()
  }

  feed(broker: AnyBroker, { from = 'latest', token }: FeedOptions = {}): () => void {
    if (!(broker instanceof LocalBroker)) throw wrongOption('broker', 'one that createBroker made', broker)
    if (this.#closed) throw new SpillwayError('CLOSED', 'The shared buffer was closed. Create another.')
    if (this.#source) throw new SpillwayError('INVALID', 'The shared buffer is fed already. Stop that feed first.')
    const { epoch } = broker.status
    if (this.#history !== undefined && this.#history !== epoch) {
      throw new SpillwayError(
        'INVALID',
        `The shared buffer holds history ${this.#history}, the broker has ${shown(epoch)}. Create another buffer.`,
      )
    }
    const start = this.#history === undefined ? from : this.#writer.index
    const source = broker.subscribe({ from: start, onLag: 'skip', token })
    this.#source = source
    source.ready.then(
      () => this.#begin(source, epoch),
      (error: unknown) => this.#fail(source, error),
    )
    return () => this.#stop(source)
  }

  flush(): void {
    this.#writer.publish()
  }

  close(): void {
    if (this.#source) this.#stop(this.#source)
    this.#end(recordType.closed, new SpillwayError('CLOSED', 'The shared buffer was closed.'))
  }

  #begin(source: BrokerSubscription, epoch: string): void {
    if (this.#source !== source) return
    if (this.#history === undefined) {
      this.#history = epoch
      writeHistory(this.#ring, epoch)
      const { index } = source
      this.#writer.beginAfter(index)
      this.#append(openFrame(formatCursor(epoch, index), undefined, index), index, recordType.open)
      this.#writer.publish()
    }
    source.onReady = () => this.#pump(source)
    this.#pump(source)
  }

  #pump(source: BrokerSubscription): void {
    try {
      for (let pulled = source.pull(); pulled && this.#source === source; pulled = source.pull()) {
        if ('gap' in pulled) this.#tell(pulled.gap)
        else this.#write(pulled.batch)
        if (this.#flush === 'each') this.#writer.publish()
      }
    } catch (error) {
      this.#fail(source, error)
    }
    if (this.#flush === 'turn') this.#writer.publish()
  }

  #write({ index, cursor, events }: StoredBatch): void {
    const [first] = events
    const isOne = first !== undefined && events.length === 1
    const tag = isOne ? topicTag(first.topic) : 0
    const key = isOne && first.filterKeys.length === 0 ? keyHash(first.key) : 0
    const text = batchFrame(index, cursor, events.map(eventText))
    const last = this.#writer.index
    try {
      this.#append(text, index, recordType.batch, tag, key, events.length)
    } catch (error) {
      if (!(error instanceof SpillwayError) || error.code !== 'TOO_LARGE') throw error
      // No room for it, so it is lost to those who read here, and they are told.
      this.#tell({ after: last, before: index + 1, reason: 'lag' })
    }
  }

  #tell(gap: Gap): void {
    const index = gap.before - 1
    this.#append(gapFrame(gap, formatCursor(this.#history ?? '', index)), index, recordType.gap)
  }

  #append(text: string, index: number, type: RecordType, tag = 0, key = 0, events = 0): void {
    // [UTF-8] Three bytes for a UTF-16 unit at the most.
    if (this.#scratch.length < text.length * 3) this.#scratch = new Uint8Array(text.length * 4)
    const { written } = this.#encoder.encodeInto(text, this.#scratch)
    this.#writer.append(this.#scratch.subarray(0, written), index, type, tag, key, events)
  }

  #stop(source: BrokerSubscription): void {
    if (this.#source !== source) return
    this.#source = undefined
    source.onReady = undefined
    source.close()
    if (!this.#closed) this.#writer.publish()
  }

  #fail(source: BrokerSubscription, cause: unknown): void {
    if (this.#source !== source) return
    this.#stop(source)
    const error = cause instanceof SpillwayError ? cause : new SpillwayError('INTERNAL', 'The feed failed.', { cause })
    this.#end(recordType.error, error)
  }

  #end(type: RecordType, { code, message }: SpillwayError): void {
    if (this.#closed) return
    this.#closed = true
    const { index } = this.#writer
    const word = new SpillwayError(code, message.slice(0, maxMessage))
    const cursor = this.#history === undefined ? '' : formatCursor(this.#history, index)
    this.#append(closedFrame(word, cursor, 0), index, type)
    this.#writer.publish()
    this.#bell.close()
  }
}
