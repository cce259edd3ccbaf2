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
  /** Told of what goes wrong inside, which peers learn nothing about. */
  readonly report: (error: unknown) => void
  readonly #broker: LocalBroker
  readonly #clock: Clock
  readonly #heartbeat: number
  readonly #interval: number
  readonly #open = new Set<EventStream>()
  readonly #groups = new Map<Encoder, Map<string, LevelGroup>>()
  #readyGroups: LevelGroup[] = []
  #ready: EventStream[] = []
  #scheduled = false
  #stopTimer: (() => void) | undefined

  /** `heartbeat`: milliseconds of silence after which a sign of life is sent. `stallTimeout`: the shortest of the streams. */
  constructor(
    broker: LocalBroker,
    clock: Clock,
    heartbeat: number,
    stallTimeout: number,
    report: (error: unknown) => void = console.error,
  ) {
    this.report = report
    this.#broker = broker
    this.#clock = clock
    this.#heartbeat = heartbeat
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
    this.#schedule()
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

  readonly #takeTurns = (): void => {
    this.#scheduled = false
    const groups = this.#readyGroups
    this.#readyGroups = []
    const left = this.#turns(groups, (group, deadline) => {
      group.isQueued = false
      if (!group.deliver(deadline)) this.enqueueGroup(group)
    })
    if (left.length > 0) this.#readyGroups = [...left, ...this.#readyGroups]
    const streams = this.#ready
    this.#ready = []
    const waiting = this.#turns(streams, (stream) => stream.pump())
    if (waiting.length > 0) this.#ready = [...waiting, ...this.#ready]
    if (this.#readyGroups.length > 0 || this.#ready.length > 0) this.#schedule()
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
