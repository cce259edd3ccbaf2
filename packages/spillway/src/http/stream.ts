import type { Clock } from '../core/clock.ts'
import { SpillwayError } from '../core/errors.ts'
import type { StoredBatch, StoredEvent } from '../core/event.ts'
import type { BrokerSubscription, Pulled } from '../core/subscription.ts'
import type { Format, Place } from './format.ts'

/** Where the bytes of a stream go: a socket, as its mount presents it. */
export interface Sink {
  /** Sends bytes. `false`: it holds as much as it should; nothing more until `drained`. */
  write(bytes: Uint8Array): boolean
  /** Whether bytes wait that the peer has not taken. */
  isWaiting(): boolean
  /** A number that grows when the peer takes bytes. */
  taken(): number
  /** Ends the body cleanly, after what was written. */
  end(): void
  /** Cuts the connection: the peer takes nothing. */
  abort(): void
}

/** A stream that is ready to be connected. */
export interface StreamBody {
  open(sink: Sink): void
  /** The sink takes bytes again. */
  drained(): void
}

/** How much is gathered into one write: a write costs the same few microseconds whatever it carries. */
const writeSize = 64 * 1024
/** How long streams are served before timers and other I/O have their turn, in milliseconds. */
const turnMs = 8

/** All open streams of a handler: they take turns at the event loop and share one timer. */
export class Streams {
  readonly #clock: Clock
  readonly #heartbeat: number
  readonly #interval: number
  readonly #open = new Set<EventStream>()
  #ready: EventStream[] = []
  #scheduled = false
  #stopTimer: (() => void) | undefined

  /** `heartbeat`: milliseconds of silence after which a sign of life is sent. `stallTimeout`: the shortest of the streams. */
  constructor(clock: Clock, heartbeat: number, stallTimeout: number) {
    this.#clock = clock
    this.#heartbeat = heartbeat
    // One timer that looks at all streams, often enough to be a tenth late at the most.
    this.#interval = Math.max(Math.min(heartbeat, stallTimeout) / 10, 10)
  }

  get size(): number {
    return this.#open.size
  }

  /** The current time, for idle streams to be told from busy ones. */
  now(): number {
    return this.#clock.monotonic()
  }

  add(stream: EventStream): void {
    this.#open.add(stream)
    this.#startTimer()
  }

  delete(stream: EventStream): void {
    this.#open.delete(stream)
    if (this.#open.size > 0) return
    this.#stopTimer?.()
    this.#stopTimer = undefined
  }

  /** `stream` may have something to send: soon it gets a turn. */
  enqueue(stream: EventStream): void {
    this.#ready.push(stream)
    if (this.#scheduled) return
    this.#scheduled = true
    queueMicrotask(this.#takeTurns)
  }

  readonly #takeTurns = (): void => {
    const deadline = this.#clock.monotonic() + turnMs
    const ready = this.#ready
    this.#ready = []
    let served = 0
    while (served < ready.length) {
      ready[served++]?.pump()
      if (this.#clock.monotonic() > deadline) break
    }
    this.#ready = served < ready.length ? [...ready.slice(served), ...this.#ready] : this.#ready
    this.#scheduled = this.#ready.length > 0
    if (this.#scheduled) this.#clock.defer(this.#takeTurns)
  }

  #startTimer(): void {
    this.#stopTimer ??= this.#clock.after(this.#interval, () => {
      this.#stopTimer = undefined
      const now = this.now()
      const quietSince = now - this.#heartbeat + this.#interval
      for (const stream of this.#open) stream.look(now, quietSince)
      if (this.#open.size > 0) this.#startTimer()
    })
  }
}

/** One reader's subscription, turned into bytes for one sink. It pulls only while the sink takes more: it holds a position, not data. */
export class EventStream implements StreamBody {
  readonly #streams: Streams
  readonly #subscription: BrokerSubscription
  readonly #encoder: Encoder
  readonly #place: () => Place
  readonly #stallTimeout: number
  #sink: Sink | undefined
  #full = false
  #queued = false
  #ending = false
  #writtenAt = 0
  #taken = 0
  #takenAt = 0

  constructor(
    streams: Streams,
    subscription: BrokerSubscription,
    encoder: Encoder,
    place: () => Place,
    stallTimeout: number,
  ) {
    this.#streams = streams
    this.#subscription = subscription
    this.#encoder = encoder
    this.#place = place
    this.#stallTimeout = stallTimeout
  }

  open(sink: Sink): void {
    this.#sink = sink
    this.#takenAt = this.#streams.now()
    this.#streams.add(this)
    this.#subscription.onReady = () => this.#enqueue()
    // At once: clients and proxies show nothing of a response before its first bytes.
    this.#write(this.#encoder.text(this.#encoder.format.open(this.#place())))
    this.#enqueue()
  }

  drained(): void {
    this.#full = false
    this.#enqueue()
  }

  /** The peer went away, or the connection is over. Harmless when done twice. */
  gone(): void {
    this.#sink = undefined
    this.#subscription.onReady = undefined
    this.#subscription.close()
    this.#streams.delete(this)
  }

  /** Sends what is there, at most one write's worth of it. */
  pump(): void {
    this.#queued = false
    if (!this.#sink || this.#full || this.#ending) return
    const chunks: Uint8Array[] = []
    let size = 0
    try {
      while (size < writeSize) {
        const pulled = this.#subscription.pull()
        if (!pulled) break
        const bytes = this.#encoder.pulled(pulled)
        chunks.push(bytes)
        size += bytes.length
      }
    } catch (error) {
      this.#end(chunks, error)
      return
    }
    if (size === 0) return
    this.#write(joined(chunks, size))
    if (size >= writeSize) this.#enqueue()
  }

  /** Cuts off a peer that takes nothing, and sends a sign of life to one that was sent nothing since `quietSince`. */
  look(now: number, quietSince: number): void {
    const sink = this.#sink
    if (!sink) return
    if (!sink.isWaiting()) {
      this.#takenAt = now
      if (this.#writtenAt <= quietSince && !this.#ending) this.#beat()
      return
    }
    const taken = sink.taken()
    if (taken !== this.#taken) {
      this.#taken = taken
      this.#takenAt = now
    } else if (now - this.#takenAt >= this.#stallTimeout) {
      const message = `The connection took no bytes for ${this.#stallTimeout} ms.`
      this.#subscription.fail(new SpillwayError('STALLED', message, { cursor: this.#subscription.cursor }))
      this.gone()
      sink.abort()
    }
  }

  #beat(): void {
    const { cursor, index } = this.#subscription
    this.#write(this.#encoder.text(this.#encoder.format.heartbeat(cursor, index)))
  }

  #enqueue(): void {
    if (this.#queued || this.#full) return
    this.#queued = true
    this.#streams.enqueue(this)
  }

  #write(bytes: Uint8Array): void {
    if (!this.#sink) return
    this.#writtenAt = this.#streams.now()
    this.#full = !this.#sink.write(bytes)
  }

  /** Says why, and stays until the peer has taken it or is cut off. */
  #end(chunks: Uint8Array[], cause: unknown): void {
    const error =
      cause instanceof SpillwayError ? cause : new SpillwayError('INTERNAL', 'The stream failed.', { cause })
    chunks.push(this.#encoder.text(this.#encoder.format.closed(error, error.cursor ?? this.#subscription.cursor)))
    this.#ending = true
    this.#write(
      joined(
        chunks,
        chunks.reduce((size, { length }) => size + length, 0),
      ),
    )
    this.#sink?.end()
  }
}

/** Makes the bytes of one format; those of a whole batch once for all streams. */
export class Encoder {
  readonly format: Format
  readonly #text = new TextEncoder()
  readonly #whole = new WeakMap<StoredBatch, Uint8Array>()

  constructor(format: Format) {
    this.format = format
  }

  text(text: string): Uint8Array {
    return this.#text.encode(text)
  }

  pulled(pulled: Pulled): Uint8Array {
    if ('gap' in pulled) return this.text(this.format.gap(pulled.gap, pulled.cursor))
    return this.#batch(pulled.batch, pulled.events)
  }

  #batch(batch: StoredBatch, events: readonly StoredEvent[]): Uint8Array {
    if (events !== batch.events) return this.text(this.format.batch(batch, events))
    let bytes = this.#whole.get(batch)
    if (!bytes) {
      bytes = this.text(this.format.batch(batch, events))
      this.#whole.set(batch, bytes)
    }
    return bytes
  }
}

function joined(chunks: readonly Uint8Array[], size: number): Uint8Array {
  if (chunks.length === 1) return chunks[0] as Uint8Array
  const bytes = new Uint8Array(size)
  let at = 0
  for (const chunk of chunks) {
    bytes.set(chunk, at)
    at += chunk.length
  }
  return bytes
}
