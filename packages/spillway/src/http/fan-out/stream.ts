import { SpillwayError } from '../../core/errors.ts'
import type { BrokerSubscription } from '../../core/subscription.ts'
import type { Encoder } from './encoder.ts'
import type { FanOut } from './fan-out.ts'
import type { LevelGroup } from './level-group.ts'
import { Piece, packed, type Sink } from './sink.ts'

/**
 * One reader's subscription, turned into bytes for one connection. It holds a position, not data.
 *
 * behind  It pulls from its own subscription, a large write at a time, for as long as the connection takes more.
 * level   It has read all. Its group writes to it what is new, together with the others that want the same, until the
 *         connection does not take more or its access is in doubt.
 * ending  It has said why, and waits for the peer to take that.
 */
export class EventStream {
  readonly encoder: Encoder
  readonly subscription: BrokerSubscription
  /** The group it is level with, its place there, and the piece it was sent last. */
  group: LevelGroup | undefined
  slot = 0
  sent = 0
  readonly #fanOut: FanOut
  readonly #shape: string
  readonly #stallTimeout: number
  readonly #onEnd: ((error: SpillwayError) => void) | undefined
  #sink: Sink | undefined
  #full = false
  #queued = false
  #ending = false
  #isBeatDue = false
  #writtenAt = 0
  #taken = 0
  #takenAt = 0
  /** When it is ended, to come back to a server that may have more room. */
  #endsAt: number

  constructor(fanOut: FanOut, subscription: BrokerSubscription, options: StreamOptions) {
    this.#fanOut = fanOut
    this.subscription = subscription
    this.encoder = options.encoder
    this.#shape = options.shape
    this.#stallTimeout = options.stallTimeout
    this.#onEnd = options.onEnd
    this.#endsAt = fanOut.now() + options.maxAge
  }

  /** What it wants and may read, as text: streams of one shape share a group. */
  get shape(): string {
    return `${this.#shape} ${this.subscription.filter.permit.key}`
  }

  /** The index up to which everything was sent or passed over. */
  get index(): number {
    return this.group ? this.group.positionOf(this).index : this.subscription.index
  }

  /** Bytes that may wait in its connection. */
  get highWaterMark(): number {
    return this.#fanOut.highWaterMark
  }

  /** Starts to send. */
  open(sink: Sink): void {
    this.#sink = sink
    this.#takenAt = this.#fanOut.now()
    this.#fanOut.add(this)
    this.subscription.onReady = () => {
      this.group?.leave(this)
      this.#enqueue()
    }
    // At once: clients and proxies show nothing of a response before its first bytes.
    this.#write(this.#fanOut.opening(this))
    this.#enqueue()
  }

  /** The connection takes more again. */
  drained(): void {
    if (!this.#full) return
    this.#full = false
    this.#enqueue()
  }

  /** The peer went away, or the connection is over. Harmless when done twice. */
  gone(): void {
    this.group?.leave(this)
    this.#sink = undefined
    this.subscription.onReady = undefined
    this.subscription.close()
    this.#fanOut.delete(this)
  }

  /** Sends what its group has. `false`: the connection does not take more. */
  send(piece: Piece): boolean {
    this.#full = this.#sink?.write(piece) === false
    return !this.#full
  }

  /** Takes its turn: sends what is there, at most one write's worth of it, and joins its group once that was all. */
  pump(): void {
    this.#queued = false
    if (!this.#sink || this.#full || this.#ending) return
    if (this.#isBeatDue) this.#beat()
    if (this.group || this.#full) return
    const pieces: Piece[] = []
    let size = 0
    try {
      size = this.encoder.gather(this.subscription, this.#fanOut.writeSize, pieces)
    } catch (error) {
      this.#end(pieces, error)
      return
    }
    this.#write(...packed(pieces, this.#fanOut.writeSize / 2))
    if (this.#full) return
    if (size >= this.#fanOut.writeSize) this.#enqueue()
    else this.#fanOut.level(this)
  }

  /** Cuts off a peer that takes nothing, ends a stream that is old, and has a sign of life sent where there was silence since `quietSince`. */
  look(now: number, quietSince: number): void {
    const sink = this.#sink
    if (!sink) return
    if (now >= this.#endsAt && !this.#ending) this.subscription.fail(this.#renewal())
    if (!sink.isWaiting()) {
      this.#takenAt = now
      const writtenAt = Math.max(this.#writtenAt, this.group?.writtenAt ?? 0)
      if (writtenAt <= quietSince && !this.#ending) {
        this.#isBeatDue = true
        this.#enqueue()
      }
      return
    }
    const taken = sink.taken()
    if (taken !== this.#taken) {
      this.#taken = taken
      this.#takenAt = now
    } else if (now - this.#takenAt >= this.#stallTimeout) {
      const message = `The connection took no bytes for ${this.#stallTimeout} ms.`
      this.subscription.fail(new SpillwayError('STALLED', message, { cursor: this.subscription.cursor }))
      this.gone()
      sink.abort()
    }
  }

  #renewal(): SpillwayError {
    const message = 'The stream has reached its greatest age. Come back with the cursor.'
    return new SpillwayError('RENEW', message, { cursor: this.subscription.cursor })
  }

  #beat(): void {
    this.#isBeatDue = false
    const { cursor, index } = this.subscription
    this.#write(this.encoder.heartbeat(cursor, index))
    if (this.#full) this.group?.leave(this)
  }

  #enqueue(): void {
    if (this.#queued || this.#full) return
    this.#queued = true
    this.#fanOut.enqueue(this)
  }

  #write(...pieces: readonly Piece[]): void {
    if (pieces.length === 0) return
    this.#writtenAt = this.#fanOut.now()
    for (const piece of pieces) this.send(piece)
  }

  /** Says why, and stays until the peer has taken it or is cut off. */
  #end(pieces: Piece[], cause: unknown): void {
    if (!(cause instanceof SpillwayError)) this.#fanOut.report(cause)
    const error =
      cause instanceof SpillwayError ? cause : new SpillwayError('INTERNAL', 'The stream failed.', { cause })
    const cursor = error.cursor ?? this.subscription.cursor
    this.#ending = true
    const last = new Piece(this.encoder.text(this.encoder.format.closed(error, cursor)))
    this.#write(...packed([...pieces, last], this.#fanOut.writeSize / 2))
    this.#sink?.end(error)
    this.#onEnd?.(error)
  }
}

export interface StreamOptions {
  readonly encoder: Encoder
  /** What it wants, as text. */
  readonly shape: string
  /** Milliseconds the peer may take no bytes while some wait. */
  readonly stallTimeout: number
  /** Milliseconds after which the stream is ended. */
  readonly maxAge: number
  /** Told why it was ended, unless its peer went away. */
  readonly onEnd?: (error: SpillwayError) => void
}
