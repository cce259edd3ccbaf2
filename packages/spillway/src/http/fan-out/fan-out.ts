import type { LocalBroker } from '../../core/broker.ts'
import type { Clock } from '../../core/clock.ts'
import { getOrMake } from '../../core/get-or-make.ts'
import type { Encoder } from './encoder.ts'
import { LevelGroup } from './level-group.ts'
import { Piece } from './sink.ts'
import type { EventStream } from './stream.ts'

/** How long streams are served before timers and other I/O have their turn, in milliseconds. */
const turnMs = 8

/**
 * All open streams of a handler. They take turns at the event loop, share one timer, and those that are level share what
 * is read and made into bytes. Follow one event: the buffer wakes the leader of a `LevelGroup`, which enqueues its group
 * here; in its turn the group makes the bytes and writes them to each `EventStream`'s sink.
 */
export class FanOut {
  /** Bytes that may wait in a connection. Whoever has fewer is sent one more write. */
  readonly highWaterMark: number
  /** Bytes at which a write is large enough: it costs the same few microseconds whatever it carries. */
  readonly writeSize: number
  /** Told of what goes wrong inside, which peers learn nothing about. */
  readonly report: (error: unknown) => void
  readonly #broker: LocalBroker
  readonly #clock: Clock
  readonly #heartbeat: number
  readonly #interval: number
  readonly #roundInterval: number
  readonly #open = new Set<EventStream>()
  readonly #groups = new Map<Encoder, Map<string, LevelGroup>>()
  #readyGroups: LevelGroup[] = []
  #ready: EventStream[] = []
  #scheduled = false
  /** Whether groups have their turns: from the beginning of a round until none of them has anything left to send. */
  #isRound = false
  #isRoundAwaited = false
  /** When the next round may begin. */
  #roundAt = 0
  #stopTimer: (() => void) | undefined

  constructor(
    broker: LocalBroker,
    clock: Clock,
    { heartbeat, stallTimeout, highWaterMark, roundInterval, report = console.error }: FanOutOptions,
  ) {
    this.report = report
    this.highWaterMark = highWaterMark
    this.writeSize = 4 * highWaterMark
    this.#broker = broker
    this.#clock = clock
    this.#heartbeat = heartbeat
    this.#roundInterval = roundInterval
    // One timer that looks at all streams, often enough to be a tenth late at the most.
    this.#interval = Math.max(Math.min(heartbeat, stallTimeout) / 10, 10)
  }

  /** How many streams are open. */
  get size(): number {
    return this.#open.size
  }

  /** Milliseconds that only grow. */
  now(): number {
    return this.#clock.monotonic()
  }

  /** Unix milliseconds, which expiry is measured by. */
  wallTime(): number {
    return this.#clock.now()
  }

  /** The first message of a stream. */
  opening({ encoder, subscription: { cursor } }: EventStream): Piece {
    const { oldestIndex: oldest, newestIndex: newest } = this.#broker.status
    return new Piece(encoder.text(encoder.format.open({ cursor, oldest, newest })))
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
    this.#schedule()
  }

  /** The members of `group` have something to be sent. */
  enqueueGroup(group: LevelGroup): void {
    if (group.isQueued) return
    group.isQueued = true
    this.#readyGroups.push(group)
    this.#scheduleRound()
  }

  /** `stream` has read all: from now on its group sends to it. */
  level(stream: EventStream): void {
    if (!stream.subscription.isLevel) return
    const groups = getOrMake(this.#groups, stream.encoder, () => new Map<string, LevelGroup>())
    const group = getOrMake(
      groups,
      stream.shape,
      () => new LevelGroup(this, stream, this.#broker.lead(stream.subscription)),
    )
    // Who does not get in goes on by itself, and tries again when it has read all the next time.
    if (!group.join(stream) && group.size === 0) this.dissolve(group)
  }

  /** The last member has left. */
  dissolve(group: LevelGroup): void {
    this.#groups.get(group.encoder)?.delete(group.shape)
    this.#broker.dismiss(group.leader)
  }

  // In a later macrotask: all that is published until then leaves in one write per connection.
  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    this.#clock.defer(this.#takeTurns)
  }

  // Only what is new waits for a round. A stream that reads by itself is behind, or has its last word to say.
  #scheduleRound(): void {
    if (this.#isRound || this.#isRoundAwaited) return
    const wait = this.#roundInterval === 0 ? 0 : this.#roundAt - this.now()
    if (wait <= 0) {
      this.#beginRound()
      return
    }
    this.#isRoundAwaited = true
    this.#clock.after(wait, () => {
      this.#isRoundAwaited = false
      this.#beginRound()
    })
  }

  #beginRound(): void {
    this.#isRound = true
    this.#roundAt = this.now() + this.#roundInterval
    this.#schedule()
  }

  readonly #takeTurns = (): void => {
    this.#scheduled = false
    if (this.#isRound) this.#takeRound()
    const streams = this.#ready
    this.#ready = []
    const waiting = this.#turns(streams, (stream) => stream.pump())
    if (waiting.length > 0) this.#ready = [...waiting, ...this.#ready]
    if (this.#isRound || this.#ready.length > 0) this.#schedule()
  }

  #takeRound(): void {
    const groups = this.#readyGroups
    this.#readyGroups = []
    const left = this.#turns(groups, (group, deadline) => {
      group.isQueued = false
      if (!group.deliver(deadline)) this.enqueueGroup(group)
    })
    if (left.length > 0) this.#readyGroups = [...left, ...this.#readyGroups]
    this.#isRound = this.#readyGroups.length > 0
  }

  /** Gives each its turn until the time is over. Answers who had none. */
  #turns<T>(ready: readonly T[], take: (one: T, deadline: number) => void): readonly T[] {
    const deadline = this.now() + turnMs
    for (let served = 0; served < ready.length; served++) {
      if (served > 0 && this.now() > deadline) return ready.slice(served)
      take(ready[served] as T, deadline)
    }
    return []
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

export interface FanOutOptions {
  /** Milliseconds of silence after which a sign of life is sent. */
  readonly heartbeat: number
  /** Milliseconds a peer may take no bytes: the shortest of the streams. */
  readonly stallTimeout: number
  /** Bytes that may wait in a connection. */
  readonly highWaterMark: number
  /** Milliseconds from one round of the groups to the next, at least. 0: a round begins in the next macrotask. */
  readonly roundInterval: number
  readonly report?: (error: unknown) => void
}
