import { type Clock, systemClock } from './clock.ts'
import { integerOption, invalid, SpillwayError } from './errors.ts'
import type { Gap } from './event.ts'
import { BufferItem } from './item.ts'
import { BufferReader, type Delivery, Follower, type Group, newGroup, type Waiter } from './reader.ts'
import { Ring } from './ring.ts'
import type { Signal } from './signal.ts'

/** Where a reader starts: only what is new, all that is kept, or after an index. */
export type From = 'latest' | 'earliest' | number

export interface EventBufferOptions<T> {
  /** How many batches are kept, as the original counts them: one more is there. At most 16,777,216. Default 100, also for 0. */
  capacity?: number | undefined
  /** Keeps at most so many bytes, as `sizeOf` tells them. Default: no limit. */
  maxBytes?: number | undefined
  /** The size of a batch in bytes; asked once per append. Needed with `maxBytes`. */
  sizeOf?: ((batch: T) => number) | undefined
  /** Milliseconds that a batch is kept. Measured by a clock that cannot be set. Default: no limit. */
  maxAge?: number | undefined
  /** The index that counts as the newest before the first append, where a history goes on. Default 0. */
  floor?: number | undefined
  clock?: Clock | undefined
}

/** A reader's place in the buffer. */
export interface Position {
  /** The last place that was read. Places count appends and do not skip. */
  place: number
  /** The last index that was read. */
  index: number
  /** What the reader lost already, to be told first. */
  gap?: Gap
}

const defaultCapacity = 100
const maxCapacity = 2 ** 24
/** How many batches a reader gets at once at the most, so that one far behind leaves room for others. */
const pageLength = 1024
/** How many readers are settled before the microtask queue gets its turn and the clock is looked at. */
const maxSettled = 1024
/** How long readers are woken in one go before timers and I/O have their turn, in milliseconds. */
const turnMs = 8
const done: Promise<void> = Promise.resolve()

/**
 * The newest `capacity` batches: a ring that one writer fills and any number of readers follow.
 *
 * Order    A reader sees every batch after the place it stands on, once, in index order.
 * Lag      An item knows its place, not its neighbour. A reader whose next batch was overwritten is told which
 *          indexes it missed; a stalled reader keeps one item alive and nothing else.
 * Waking   `append` stores and schedules one microtask per tick, which wakes all. A burst within one tick that is
 *          longer than the buffer overruns readers that await: `await flushed()` between its parts. Followers are
 *          served before a batch that they have not seen is overwritten, unless it is a follower that appends.
 * Closing  After `appendError` or `close`, readers get what was appended before, then the error, on every call.
 */
export class EventBuffer<T extends { readonly index: number }> {
  /** The wanted number of batches. */
  readonly capacity: number
  readonly #clock: Clock
  readonly #limited: boolean
  readonly #maxBytes: number
  readonly #maxAge: number
  readonly #sizeOf: ((batch: T) => number) | undefined
  readonly #ring: Ring<T | BufferItem<T>>
  /** Stands before the oldest batch until `advanceHead` removes it; always there while nothing is kept. */
  #sentinel: BufferItem<T> | undefined
  #newest: number
  /** Some index was appended twice, so a batch that has it need not be the first. */
  #hasEqual = false
  #error: Error | undefined

  /** Readers that wait with a promise of their own. They park at the tail, so their places never fall. */
  readonly #waiters = new Set<Waiter>()
  /** Readers that share the promise of the place that they wait at. */
  #groups: Group<T>[] = []
  /** The last of them, as long as its readers have seen all. */
  #open: Group<T> | undefined
  #followers: Follower<T>[] = []
  #stopped = 0
  /** A follower came, or runs again, that the current round may have passed already. */
  #joined = false
  /** Every running follower has read up to this place. */
  #followed = Number.POSITIVE_INFINITY
  /** Whose turn it is among the followers. */
  #turn = 0
  /** What the reader served last got; others at its place get the same. */
  #shared: Delivery<T> | undefined

  #scheduled = false
  #serving = false
  #deadline = 0
  /** The monotonic time of this tick, which is read once: a clock costs as much as ten appends. */
  #tick = 0
  /** What makes Unix milliseconds of the monotonic clock. */
  readonly #unixOffset: number
  #flushes: (() => void)[] = []
  #stopTrimming: (() => void) | undefined

  /** Throws `CONFIG` that names the option. */
  constructor({ capacity = 0, maxBytes, maxAge, sizeOf, floor = 0, clock = systemClock }: EventBufferOptions<T> = {}) {
    this.capacity = integerOption('capacity', capacity, 0, maxCapacity) || defaultCapacity
    this.#maxBytes = integerOption('maxBytes', maxBytes ?? 0, 0) || Number.POSITIVE_INFINITY
    this.#maxAge = integerOption('maxAge', maxAge ?? 0, 0) || Number.POSITIVE_INFINITY
    this.#limited = Boolean(maxBytes || maxAge)
    if (maxBytes && !sizeOf)
      throw new SpillwayError('CONFIG', 'maxBytes needs sizeOf, which tells the size of a batch.')
    this.#sizeOf = maxBytes ? sizeOf : undefined
    this.#clock = clock
    this.#unixOffset = clock.now() - clock.monotonic()
    this.#newest = integerOption('floor', floor, 0)
    // A full buffer keeps one more than its capacity (see `length`), and a batch enters before the oldest one leaves.
    this.#ring = new Ring(this.capacity + 3, floor, this.#sizeOf !== undefined)
    this.#sentinel = this.#newSentinel()
  }

  /**
   * Stores a batch, in the same few steps whatever the number of readers.
   * Throws `INDEX_ORDER` if its index is below the newest, `TOO_LARGE`, or `CLOSED` after the end; nothing is stored then.
   */
  append(batch: T): void {
    const { index } = batch
    const size = this.check(batch)
    if (index === this.#newest) this.#hasEqual = true
    this.#newest = index
    this.#push(batch, index, size)
  }

  /** Counts the batch at `index` as appended and dropped at once, and with it all before: it is kept elsewhere. Throws as `append`. */
  skip(index: number): void {
    this.#checkOrder(index)
    while (!this.#isEmpty()) this.advanceHead()
    this.#newest = index
    this.#ring.push(this.tail, index, this.#startTick(), 0)
    this.#ring.drop()
    this.#sentinel = this.#newSentinel()
  }

  /** Throws as `append` would, and gives back the size of `batch` otherwise. */
  check(batch: T): number {
    const { index } = batch
    this.#checkOrder(index)
    const size = this.#sizeOf === undefined ? 0 : this.#sizeOf(batch)
    if (size <= this.#maxBytes) return size
    throw new SpillwayError(
      'TOO_LARGE',
      `The batch at index ${index} has ${size} bytes, maxBytes is ${this.#maxBytes}.`,
    )
  }

  /** Ends the buffer: readers get what was appended before, then `error`, on every call. Throws `CLOSED` if it has ended already. */
  appendError(error: Error): BufferItem<T> {
    if (this.#error) throw new SpillwayError('CLOSED', 'The buffer has ended already.', { cause: this.#error })
    const item = new BufferItem<T>(this, this.#ring.last + 1, 0, this.#unixTime(this.#startTick()), undefined, error)
    this.#error = error
    this.#stopTrimming?.()
    this.#push(item, this.#newest, 0)
    return item
  }

  /** Ends the buffer with the error `CLOSED`. Harmless when it has ended already. */
  close(): void {
    if (!this.#error) this.appendError(new SpillwayError('CLOSED', 'The buffer was closed.'))
  }

  /** Resolves when all that was appended so far has been handed to the readers that waited for it. */
  flushed(): Promise<void> {
    if (!this.#scheduled) return done
    return new Promise((resolve) => this.#flushes.push(resolve))
  }

  /**
   * A reader that pulls: `for await`, `next()` or `take()`. Without a signal all readers that wait at one place share
   * one promise; with one, each has its own and can be stopped while it waits; `return()` it to let go of the signal. Throws `INVALID` for a `from` that is no position.
   */
  read({ from = 'latest', signal }: { from?: From; signal?: Signal } = {}): BufferReader<T> {
    return new BufferReader(this, this.locate(from), signal)
  }

  /**
   * A reader that is called with what it has not seen, at most once per tick and page: the cheapest kind, without promises.
   * What `listener` throws ends this follower and becomes an unhandled rejection; others go on.
   */
  follow(listener: (delivery: Delivery<T>) => void, { from = 'latest', onEnd }: FollowOptions = {}): Follower<T> {
    const follower = new Follower(this, this.locate(from), listener, onEnd)
    this.#followers.push(follower)
    this.schedule(follower)
    return follower
  }

  /** The item at the front: the oldest batch, or the sentinel before it. */
  get head(): BufferItem<T> {
    return this.#sentinel ?? this.#itemAt(this.#ring.first)
  }

  /** The newest item. */
  get tail(): BufferItem<T> {
    return this.#isEmpty() ? (this.#sentinel as BufferItem<T>) : this.#itemAt(this.#ring.last)
  }

  /**
   * Batches as the original counts them: the sentinel is not counted when it enters, and its removal is, so that a full
   * buffer keeps one batch more than it says. `retained` is the true number.
   */
  get length(): number {
    const items = this.#ring.last - this.#ring.first + 1
    return this.#sentinel ? items : items - 1
  }

  /** How many batches are kept. */
  get retained(): number {
    return Math.max(0, this.lastPlace - this.#ring.first + 1)
  }

  /** Sum of `sizeOf` over what is kept; 0 without `maxBytes`. */
  get bytes(): number {
    return this.#ring.bytes
  }

  /** The index of the oldest kept batch; `undefined` if none is kept. */
  get oldestIndex(): number | undefined {
    return this.retained > 0 ? this.#ring.indexAt(this.#ring.first) : undefined
  }

  /** The index of the newest batch ever appended; the initial floor before the first. */
  get newestIndex(): number {
    return this.#newest
  }

  /** The newest index that is no longer kept. A reader lost something exactly if its last index is below. */
  get floor(): number {
    return this.#ring.floor
  }

  /** Why the buffer ended. */
  get error(): Error | undefined {
    return this.#error
  }

  /** Drops the oldest item, as the original does: first a sentinel, and a new one comes when nothing else is left. */
  advanceHead(): void {
    const ring = this.#ring
    if (this.#sentinel && !this.#isEmpty()) {
      this.#sentinel = undefined
      return
    }
    if (!this.#isEmpty()) {
      if (ring.first > this.#followed) this.#serveAll()
      ring.drop()
      this.#shared = undefined
    }
    if (this.#isEmpty()) this.#sentinel = this.#newSentinel()
  }

  /** Drops what is older than `maxAge`. Happens by itself within a tenth of that age; call it where that is too late. */
  trim(): void {
    if (this.#maxAge !== Number.POSITIVE_INFINITY) this.#dropBefore(this.#clock.monotonic() - this.#maxAge)
  }

  /** Lets nothing go by age any more. */
  stopTrimming(): void {
    this.#stopTrimming?.()
  }

  /** The first kept item at or after `index`, else the last one, and how far it is from `index`. Among 1,000,000 it takes 21 probes at the most. */
  startAtClosest(index: number): { item: BufferItem<T>; offset: number } {
    const { head } = this
    if (index <= head.index) return { item: head, offset: head.index - index }
    const place = this.placeAtOrAfter(index)
    const item = place > this.lastPlace ? this.tail : this.#itemAt(place)
    return { item, offset: Math.abs(item.index - index) }
  }

  /** Where a reader stands that starts at `from`, and what it has lost already. Throws `INVALID`. */
  locate(from: From): Position {
    if (from === 'latest') return { place: this.lastPlace, index: this.#newest }
    if (from === 'earliest') return { place: this.#ring.first - 1, index: this.floor }
    if (!Number.isSafeInteger(from) || from < 0) {
      throw invalid('from', 'be "latest", "earliest" or an index from 0 to 2^53-1', from)
    }
    if (from > this.#newest) {
      return {
        place: this.lastPlace,
        index: this.#newest,
        gap: { after: from, before: this.#newest + 1, reason: 'truncated' },
      }
    }
    if (from < this.floor) {
      return { place: this.#ring.first - 1, index: this.floor, gap: this.gapAfter(from, 'retention') }
    }
    return { place: this.placeAtOrAfter(from + 1) - 1, index: from }
  }

  /** The loss of a reader that saw `index` last and whose next batch is gone. */
  gapAfter(index: number, reason: Gap['reason']): Gap {
    return { after: index, before: this.oldestIndex ?? this.floor + 1, reason }
  }

  /** The first kept place whose index is at or after `index`; the place after the newest if there is none. */
  placeAtOrAfter(index: number): number {
    let low = this.#ring.first
    let high = this.lastPlace + 1
    // A history that counts by ones needs no search.
    const guess = low + (index - this.floor - 1)
    if (guess >= low && guess < high && !this.#hasEqual && this.indexAt(guess) === index) return guess
    while (low < high) {
      const middle = low + Math.floor((high - low) / 2)
      if (this.indexAt(middle) < index) low = middle + 1
      else high = middle
    }
    return low
  }

  /** The oldest kept place. */
  get firstPlace(): number {
    return this.#ring.first
  }

  /** The place of the newest batch ever appended. */
  get lastPlace(): number {
    return this.#error ? this.#ring.last - 1 : this.#ring.last
  }

  /** The batch at a place; `undefined` where none is kept. */
  at(place: number): T | undefined {
    const slot = this.#ring.at(place)
    return slot instanceof BufferItem ? slot.batch : slot
  }

  /** The index at a kept place. */
  indexAt(place: number): number {
    return this.#ring.indexAt(place)
  }

  /** Unix milliseconds of the batch at a kept place. */
  timeAt(place: number): number {
    return this.#unixTime(this.#ring.timeAt(place))
  }

  /** A page of what a reader has not seen that stands on `place` and saw `index` last; `undefined` if that is nothing. */
  after(place: number, index: number): Delivery<T> | undefined {
    const shared = this.#shared
    if (shared !== undefined && shared.start === place) return shared
    const last = this.lastPlace
    if (place >= last) return undefined
    const { first } = this.#ring
    const start = Math.max(place + 1, first)
    const end = Math.min(last, start + pageLength - 1)
    const batches: T[] = []
    for (let at = start; at <= end; at++) batches.push(this.at(at) as T)
    const delivery = { start: place, last, end, index: end < last ? this.indexAt(end) : this.#newest, batches }
    if (start > place + 1) return { ...delivery, gap: this.gapAfter(index, 'lag') }
    if (this.#scheduled) this.#shared = delivery
    return delivery
  }

  /** The item after `item`, be it an error. Throws `LAGGED` if the next batch is gone. */
  successor(item: BufferItem<T>): BufferItem<T> | undefined {
    const place = item.place + 1
    const missed = Math.min(this.#ring.first, this.lastPlace + 1) - place
    if (missed <= 0) return this.#ring.at(place) === undefined ? undefined : this.#itemAt(place)
    const gap = this.gapAfter(item.seen, 'lag')
    const message = `Event dropped from buffer: the reader saw index ${item.seen} last, the oldest kept is ${gap.before}, ${missed} batches were missed.`
    throw new SpillwayError('LAGGED', message, { gap })
  }

  /** Parks a reader that has seen all until it is settled or unparked. */
  park(waiter: Waiter): void {
    this.#waiters.add(waiter)
  }

  unpark(waiter: Waiter): void {
    this.#waiters.delete(waiter)
  }

  /** The promise that readers share which have seen all. */
  join(): Group<T> {
    let group = this.#open
    if (group === undefined || group.size === maxSettled) {
      group = newGroup(this.lastPlace, this.#newest)
      this.#groups.push(group)
      this.#open = group
    }
    group.size++
    return group
  }

  /** Makes sure that a follower is served that is new or runs again. */
  schedule(follower: Follower<T>): void {
    this.#followed = Math.min(this.#followed, follower.place)
    this.#joined = true
    this.#startTick()
  }

  /** Lets go of followers that were stopped, in amortized O(1). */
  forget(): void {
    this.#stopped++
    if (!this.#serving && this.#stopped * 2 > this.#followers.length) this.#sweep()
  }

  #push(value: T | BufferItem<T>, index: number, size: number): void {
    const time = this.#startTick()
    const ring = this.#ring
    ring.push(value, index, time, size)
    this.#shared = undefined
    this.#open = undefined
    if (ring.last - ring.first >= this.capacity) this.#shrink()
    if (this.#limited) this.#enforce(time)
  }

  /** Drops what is over `capacity`. */
  #shrink(): void {
    const ring = this.#ring
    if (this.#sentinel) this.#sentinel = undefined
    else if (ring.last - ring.first > this.capacity) {
      if (ring.first > this.#followed) this.#serveAll()
      ring.drop()
    }
  }

  #enforce(time: number): void {
    while (this.#ring.bytes > this.#maxBytes) this.advanceHead()
    if (this.#maxAge !== Number.POSITIVE_INFINITY) this.#trimFrom(time)
  }

  #trimFrom(now: number): void {
    this.#dropBefore(now - this.#maxAge)
    // Nothing is scheduled for an empty buffer, so one that is forgotten can be collected.
    if (this.#stopTrimming || this.#isEmpty() || this.#error) return
    this.#stopTrimming = this.#clock.after(Math.max(this.#maxAge / 10, 10), () => {
      this.#stopTrimming = undefined
      this.#trimFrom(this.#clock.monotonic())
    })
  }

  #dropBefore(time: number): void {
    while (!this.#isEmpty() && this.#ring.timeAt(this.#ring.first) < time) this.advanceHead()
  }

  #isEmpty(): boolean {
    return this.#ring.first > this.#ring.last
  }

  #newSentinel(): BufferItem<T> {
    return new BufferItem<T>(this, this.#ring.first - 1, 0, this.#unixTime(this.#clock.monotonic()))
  }

  #itemAt(place: number): BufferItem<T> {
    const slot = this.#ring.at(place) as T | BufferItem<T>
    if (slot instanceof BufferItem) return slot
    const item = new BufferItem<T>(this, place, slot.index, this.#unixTime(this.#ring.timeAt(place)), slot)
    this.#ring.replace(place, item)
    return item
  }

  #unixTime(monotonic: number): number {
    return Math.round(monotonic + this.#unixOffset)
  }

  #checkOrder(index: number): void {
    if (this.#error)
      throw new SpillwayError('CLOSED', 'The buffer has ended, nothing can be appended.', { cause: this.#error })
    if (!Number.isSafeInteger(index)) throw invalid('index', 'be an integer up to 2^53-1', index)
    if (index >= this.#newest) return
    const message = `Index ${index} is below the buffer's newest index ${this.#newest}. Append with a larger index.`
    throw new SpillwayError('INDEX_ORDER', message)
  }

  #startTick(): number {
    if (!this.#scheduled) {
      this.#scheduled = true
      this.#tick = this.#clock.monotonic()
      done.then(this.#startTurn)
    }
    return this.#tick
  }

  readonly #startTurn = (): void => {
    this.#tick = this.#clock.monotonic()
    this.#deadline = this.#tick + turnMs
    this.#serve()
  }

  /** Serves everybody who is behind, and goes on in the next microtask, or after `turnMs` in a later macrotask. */
  readonly #serve = (): void => {
    const served = this.#serveFollowers(this.#deadline)
    const settled = this.#settleWaiters()
    if (!served || !settled) {
      if (this.#clock.monotonic() < this.#deadline) done.then(this.#serve)
      else this.#clock.defer(this.#startTurn)
      return
    }
    this.#scheduled = false
    this.#shared = undefined
    const flushes = this.#flushes
    if (flushes.length === 0) return
    this.#flushes = []
    for (const resolve of flushes) resolve()
  }

  /** One round through the followers, a page each. Answers whether nobody is behind. */
  #serveFollowers(deadline: number): boolean {
    this.#serving = true
    this.#joined = false
    const followers = this.#followers
    let place = this.lastPlace
    let running = 0
    let pages = 0
    const { length } = followers
    for (let n = length; n > 0; n--) {
      // Who comes meanwhile waits for the next round.
      if (this.#turn >= length) this.#turn = 0
      const follower = followers[this.#turn++] as Follower<T>
      if (follower.serve()) {
        running++
        if (follower.place < place) place = follower.place
      }
      // The clock costs as much as three followers.
      if ((++pages & 31) === 0 && this.#clock.monotonic() > deadline) {
        this.#serving = false
        return false
      }
    }
    this.#serving = false
    if (this.#joined) return false
    this.#followed = running > 0 ? place : Number.POSITIVE_INFINITY
    if (this.#stopped * 2 > followers.length) this.#sweep()
    return running === 0 || place >= this.lastPlace
  }

  /** Serves all followers at once, since a batch that one has not seen is about to go; twice where the first round brought others. */
  #serveAll(): void {
    if (!this.#serving && !this.#serveFollowers(Number.POSITIVE_INFINITY))
      this.#serveFollowers(Number.POSITIVE_INFINITY)
  }

  #sweep(): void {
    this.#followers = this.#followers.filter((follower) => !follower.stopped)
    this.#stopped = 0
    this.#turn = 0
  }

  /** Settles some of the readers that wait. Answers whether nobody is left who could be. */
  #settleWaiters(): boolean {
    const last = this.lastPlace
    let settled = 0
    for (const waiter of this.#waiters) {
      if (waiter.place >= last && !this.#error) break
      if (++settled > maxSettled) return false
      this.#waiters.delete(waiter)
      waiter.settle()
    }
    const group = this.#groups[0]
    if (!group || (group.place >= last && !this.#error)) return true
    this.#groups.shift()
    group.settle(this.after(group.place, group.index), this.#error)
    return this.#groups.length === 0
  }
}

interface FollowOptions {
  /** Where to start. Default `latest`. */
  from?: From
  /** Called once, when the buffer has ended and everything before was delivered. */
  onEnd?: (error: Error) => void
}
