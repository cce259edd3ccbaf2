import { systemClock } from '../core/clock.ts'
import { type ErrorCode, errorTable, SpillwayError, wrongOption } from '../core/errors.ts'
import type { Batch, EventOf, Gap, TopicMap } from '../core/event.ts'
import { cell, openRing, type Ring, readHistory, type SharedHandle, wide } from './layout.ts'
import { endOf } from './reader.ts'
import { host, KeepAlive } from './runtime.ts'
import { type Span, SpanReader } from './span.ts'
import { RingSubscription, type SharedSubscribeOptions, type SharedSubscription } from './subscription.ts'
import { Alarm, sleep } from './wait.ts'

export interface OpenOptions {
  /** Whether a waiting `next` keeps this thread alive, as a socket does. Default true. */
  keepAlive?: boolean | undefined
}

/** A shared buffer as those see it who read it. */
export interface OpenedBuffer<Topics extends object = TopicMap> {
  /**
   * Starts a subscription. Until the buffer is fed it waits, and its `cursor` is empty. All subscriptions of a thread share
   * one wait, and the batches that they parse. Throws `INVALID` that names the field.
   */
  subscribe<Wanted extends (keyof Topics & string) | '*' = '*'>(
    options?: Omit<SharedSubscribeOptions, 'topics'> & {
      topics?: { readonly [Topic in Wanted]: readonly string[] } | undefined
    },
  ): SharedSubscription<EventOf<'*' extends Wanted ? Topics : Pick<Topics, Wanted & keyof Topics>>>
}

const rings = new WeakMap<SharedArrayBuffer, OpenedRing>()

/** Opens the buffer that another thread made, or this one. Throws `CONFIG` that names what is wrong. */
export function openSharedBuffer<Topics extends object = TopicMap>(
  handle: SharedHandle,
  { keepAlive = true }: OpenOptions = {},
): OpenedBuffer<Topics> {
  if (typeof keepAlive !== 'boolean') throw wrongOption('keepAlive', 'a boolean', keepAlive)
  const opened = rings.get(handle?.memory) ?? new OpenedRing(openRing(handle))
  rings.set(handle.memory, opened)
  opened.keepsAlive ||= keepAlive
  // The topics exist only in the types.
  return { subscribe: (options) => new RingSubscription(opened, options ?? {}) as unknown as SharedSubscription<never> }
}

/** After so many batches in one turn others have theirs: a writer in another thread may never let a reader come to an end. */
const maxPerTurn = 1024

/** What the subscriptions to one ring in one thread share: the copies of its bytes, what was parsed, and the wait. */
export class OpenedRing {
  readonly ring: Ring
  readonly spans: SpanReader
  /** The word of TAIL before the first record. */
  readonly firstTail: number
  keepsAlive = false
  readonly #alarm: Alarm
  readonly #alive = new KeepAlive()
  readonly #parked = new Set<RingSubscription>()
  readonly #parsed = new WeakMap<Span, Map<number, Batch>>()
  readonly #decoder = new host.TextDecoder()
  #history: string | undefined
  #served = 0
  #isDeferred = false

  constructor(ring: Ring) {
    const { origin, page } = ring.layout
    this.ring = ring
    this.spans = new SpanReader(ring)
    this.firstTail = (origin * (page / 8)) | 0
    this.#alarm = new Alarm(ring.memory, ring.layout, () => this.#serve())
  }

  get tail(): number {
    return this.ring.memory.load(cell.tail)
  }

  /** Whether the first record has been published. */
  get isFed(): boolean {
    return this.#history !== undefined || endOf(this.ring) > this.ring.layout.origin * this.ring.layout.page
  }

  /** The epoch of the broker whose batches these are. Only once it is fed. */
  get history(): string {
    this.#history ??= readHistory(this.ring)
    return this.#history
  }

  get newestIndex(): number {
    const { memory } = this.ring
    memory.load(cell.tail)
    return wide(memory.get(cell.newest + 1), memory.get(cell.newest + 2))
  }

  /** Whether what is there must wait for a later turn. */
  get isTired(): boolean {
    return this.#served >= maxPerTurn
  }

  tire(): void {
    this.#served++
  }

  now(): number {
    return systemClock.monotonic()
  }

  /** Blocks until there may be something behind `tail`. Throws `INVALID` where that is not possible. */
  sleep(tail: number, ms: number): boolean {
    try {
      return sleep(this.ring.memory, tail, ms)
    } catch (cause) {
      throw new SpillwayError('INVALID', 'This thread may not block. Use next() instead of nextSync().', { cause })
    }
  }

  /** Wakes `subscription` when there is something for it. Throws `CONFIG` where nothing can wake it. */
  park(subscription: RingSubscription): void {
    if (this.isTired || subscription.isResting) this.#defer()
    else this.#alarm.set(subscription.tail)
    this.#parked.add(subscription)
    if (this.keepsAlive) this.#alive.hold()
  }

  unpark(subscription: RingSubscription): void {
    this.#parked.delete(subscription)
    if (this.#parked.size === 0) this.#alive.release()
  }

  /** The batch of a record, parsed once for all who look at one copy. */
  batchAt(span: Span, at: number): Batch {
    let batches = this.#parsed.get(span)
    if (!batches) {
      batches = new Map()
      this.#parsed.set(span, batches)
    }
    let batch = batches.get(at)
    if (!batch) {
      batch = this.#parse(span, at) as Batch
      batches.set(at, batch)
    }
    return batch
  }

  gapAt(span: Span, at: number): Gap {
    const { gap, reset } = this.#parse(span, at) as { gap?: Gap; reset?: Gap }
    return (gap ?? reset) as Gap
  }

  /** What the last word says. */
  errorAt(span: Span, at: number): SpillwayError {
    this.#alarm.close()
    const { closed } = this.#parse(span, at) as { closed: { code: ErrorCode; message: string; cursor: string } }
    const code = Object.hasOwn(errorTable, closed.code) ? closed.code : 'INTERNAL'
    return new SpillwayError(code, closed.message, closed.cursor === '' ? {} : { cursor: closed.cursor })
  }

  #parse(span: Span, at: number): unknown {
    return JSON.parse(this.#decoder.decode(span.payloadAt(at)))
  }

  #serve(): void {
    // Before anybody looks: what comes after this is what the next wait is for.
    const { tail } = this
    // A wait that ended at once brought it here in the same turn.
    this.#served++
    for (const subscription of [...this.#parked]) if (!subscription.wake()) this.unpark(subscription)
    if (this.isTired || [...this.#parked].some(({ isResting }) => isResting)) this.#defer()
    else if (this.#parked.size > 0) this.#alarm.set(tail)
  }

  /** Looks again once timers and I/O had their turn. */
  #defer(): void {
    if (this.#isDeferred) return
    this.#isDeferred = true
    systemClock.defer(() => {
      this.#isDeferred = false
      this.#served = 0
      this.#serve()
    })
  }
}
