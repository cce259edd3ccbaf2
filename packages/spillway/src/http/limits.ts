import type { AnyBroker } from '../core/broker.ts'
import { integerOption, SpillwayError } from '../core/errors.ts'
import { getOrMake } from '../core/get-or-make.ts'

export interface LimitOptions {
  /** Streams of one broker that may be open at once, over all faces; more are refused with 503 and `Retry-After`. Default 20,000. */
  maxStreams?: number | undefined
  /** Streams that may be open at once for one subject. Default: no limit. Readers without a token are not counted. */
  maxStreamsPerSubject?: number | undefined
  /** Streams that may be open at once from one address. Default: no limit. */
  maxStreamsPerAddress?: number | undefined
  /**
   * Events that a subject may publish in a second over HTTP, an address where there is no token; so many at once, too.
   * More are refused with 429 and `Retry-After`. Default: no limit.
   */
  maxPublishRate?: number | undefined
}

const noLimit = 2 ** 31 - 1

/** The streams that are open or being opened, of one broker. */
class Counts {
  all = 0
  readonly bySubject = new Map<string, number>()
  readonly byAddress = new Map<string, number>()
  /** Of those whose rights are not known yet. */
  readonly unknownByAddress = new Map<string, number>()
}

const counts = new WeakMap<AnyBroker, Counts>()

/** A stream's place among those that are counted. */
export interface Place {
  /** Counts it for its subject, too. Throws or rejects with `OVERLOADED`. */
  for(subject: string): void | Promise<void>
  /** Harmless when done twice. */
  free(): void
}

/** How many streams may be open. */
export class StreamLimits {
  readonly #counts: Counts
  readonly #inAll: number
  readonly #perSubject: number
  readonly #perAddress: number
  readonly #unknownPerAddress: number

  constructor(broker: AnyBroker, { maxStreams, maxStreamsPerSubject, maxStreamsPerAddress }: LimitOptions) {
    this.#counts = getOrMake(counts, broker, () => new Counts())
    this.#inAll = integerOption('maxStreams', maxStreams ?? 20_000, 1, noLimit)
    this.#perSubject = integerOption('maxStreamsPerSubject', maxStreamsPerSubject ?? noLimit, 1, noLimit)
    // Strangers must not take all places while it is looked up who they are.
    this.#unknownPerAddress = Math.max(16, Math.ceil(this.#inAll / 4))
    this.#perAddress = integerOption('maxStreamsPerAddress', maxStreamsPerAddress ?? noLimit, 1, noLimit)
  }

  /** Takes a place for a stream from `address`, `''` if it has none. Throws `OVERLOADED`. */
  take(address: string): Place {
    const { all, byAddress, bySubject, unknownByAddress } = this.#counts
    if (all >= this.#inAll) throw full(`${this.#inAll} streams`)
    check(byAddress, address, this.#perAddress, 'address')
    check(unknownByAddress, address, this.#unknownPerAddress, 'address')
    this.#counts.all++
    add(byAddress, address, 1)
    add(unknownByAddress, address, 1)
    let isKnown = false
    let subject = ''
    let isFree = false
    return {
      for: (name) => {
        if (isFree || isKnown) return
        isKnown = true
        add(unknownByAddress, address, -1)
        check(bySubject, name, this.#perSubject, 'subject')
        subject = name
        add(bySubject, name, 1)
      },
      free: () => {
        if (isFree) return
        isFree = true
        this.#counts.all--
        add(byAddress, address, -1)
        add(bySubject, subject, -1)
        if (!isKnown) add(unknownByAddress, address, -1)
      },
    }
  }
}

function check(taken: ReadonlyMap<string, number>, name: string, most: number, what: string): void {
  if (name !== '' && (taken.get(name) ?? 0) >= most) throw full(`${most} streams of one ${what}`)
}

function full(limit: string): SpillwayError {
  return new SpillwayError('OVERLOADED', `This server takes ${limit}, and they are open. Nothing was opened.`)
}

function add(taken: Map<string, number>, name: string, by: number): void {
  if (name === '') return
  const left = (taken.get(name) ?? 0) + by
  if (left > 0) taken.set(name, left)
  else taken.delete(name)
}

/** Publishers that are remembered at once: those who have not published for a second need not be. */
const mostPublishers = 10_000

/** How fast each may publish: a bucket that fills with `rate` events a second, and holds as many. */
export class PublishRate {
  readonly #rate: number
  /** By publisher: what is left of its bucket, and when that was. Who published last stands last. */
  readonly #buckets = new Map<string, { left: number; at: number }>()

  constructor(maxPublishRate: number | undefined) {
    this.#rate = integerOption('maxPublishRate', maxPublishRate ?? noLimit, 1, noLimit)
  }

  /** Takes `events` from the bucket of `publisher`. Throws `RATE_LIMITED`. `now`: milliseconds that only grow. */
  take(publisher: string, events: number, now: number): void {
    if (this.#rate === noLimit) return
    const { left, at } = this.#buckets.get(publisher) ?? { left: this.#rate, at: now }
    const filled = Math.min(this.#rate, left + ((now - at) / 1000) * this.#rate)
    // A full bucket pays for any batch: one that is larger could never be published.
    if (events > filled && filled < this.#rate) {
      const message = `At most ${this.#rate} events a second may be published, and these are ${events}. None was stored.`
      throw new SpillwayError('RATE_LIMITED', message)
    }
    this.#buckets.delete(publisher)
    this.#buckets.set(publisher, { left: filled - events, at: now })
    this.#forget(now)
  }

  /** Those whose bucket is full again, and the oldest of too many. */
  #forget(now: number): void {
    for (const [publisher, { left, at }] of this.#buckets) {
      const isFull = left + ((now - at) / 1000) * this.#rate >= this.#rate
      if (!isFull && this.#buckets.size <= mostPublishers) return
      this.#buckets.delete(publisher)
    }
  }
}
