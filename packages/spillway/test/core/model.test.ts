import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { test } from 'node:test'
import { EventBuffer, type From } from '../../src/core/buffer.ts'
import { SpillwayError } from '../../src/core/errors.ts'
import type { Gap } from '../../src/core/event.ts'
import type { BufferItem } from '../../src/core/item.ts'
import type { BufferReader, Delivery, Follower } from '../../src/core/reader.ts'
import { type Random, seededRandom } from '../support/random.ts'
import { turn, withCode } from '../support/waiting.ts'

interface Tiny {
  readonly index: number
  readonly size: number
}

type Told = Pick<Delivery<Tiny>, 'gap' | 'batches'>

interface Stand {
  readonly place: number
  readonly index: number
  readonly early?: Gap
}

/** What the buffer has to be, said as simply as possible: all that was ever appended, and where the kept part starts. */
class Model {
  readonly batches: Tiny[] = []
  first = 1
  sentinel = true
  error: Error | undefined
  readonly #capacity: number
  readonly #maxBytes: number

  constructor(capacity: number, maxBytes: number) {
    this.#capacity = capacity
    this.#maxBytes = maxBytes
  }

  /** The place of the newest batch; the error, if any, stands on the one after it. */
  get last(): number {
    return this.batches.length
  }

  get end(): number {
    return this.error ? this.last + 1 : this.last
  }

  get length(): number {
    return this.end - this.first + (this.sentinel ? 1 : 0)
  }

  get kept(): readonly Tiny[] {
    return this.batches.slice(this.first - 1)
  }

  get floor(): number {
    return this.indexAt(Math.min(this.first - 1, this.last))
  }

  get newest(): number {
    return this.indexAt(this.last)
  }

  /** The first index that is still to be had, or the first that may come. */
  get oldest(): number {
    return this.kept[0]?.index ?? this.floor + 1
  }

  indexAt(place: number): number {
    return this.batches[place - 1]?.index ?? 0
  }

  trim(): void {
    while (this.length > this.#capacity || this.kept.reduce((sum, { size }) => sum + size, 0) > this.#maxBytes) {
      this.advanceHead()
    }
  }

  advanceHead(): void {
    if (this.sentinel && this.first <= this.end) this.sentinel = false
    else if (this.first <= this.end) this.first++
    if (this.first > this.end) this.sentinel = true
  }

  /** Where a reader stands that starts at `from`, the index that it knows last, and what it has lost by then. */
  start(from: From): Stand {
    if (from === 'latest') return { place: this.last, index: this.newest }
    if (from === 'earliest') return { place: this.first - 1, index: this.floor }
    const early = (before: number, reason: Gap['reason']): Gap => ({ after: from, before, reason })
    if (from > this.newest) {
      return { place: this.last, index: this.newest, early: early(this.newest + 1, 'truncated') }
    }
    if (from < this.floor) {
      return { place: this.first - 1, index: this.floor, early: early(this.oldest, 'retention') }
    }
    return { place: this.batches.filter(({ index }) => index <= from).length, index: from }
  }

  /** What a reader is owed; `undefined` for nothing. */
  owed({ place, index, early }: Stand): Told | undefined {
    const lost = place < this.last && place + 1 < this.first
    const batches = this.batches.slice(Math.max(place, this.first - 1))
    if (lost) return { gap: { ...(early ?? { after: index, reason: 'lag' }), before: this.oldest }, batches }
    if (early) return { gap: early, batches }
    return place < this.last ? { batches } : undefined
  }
}

/** What one reader has been given so far, checked as it comes. */
class Story {
  readonly model: Model
  #stand: Stand

  constructor(model: Model, from: From) {
    this.model = model
    this.#stand = model.start(from)
  }

  get owed(): Told | undefined {
    return this.model.owed(this.#stand)
  }

  /** A delivery that was made just now. */
  takesNow(delivery: Delivery<Tiny> | undefined): void {
    assert.deepEqual(delivery && told(delivery), this.owed)
    if (delivery) this.takes(delivery)
  }

  /** A delivery that was made a moment ago: the model may have moved on since. */
  takes({ gap, batches, end }: Delivery<Tiny>): void {
    const { place, index, early } = this.#stand
    const start = end - batches.length
    assert.ok(start >= place, 'no batch comes twice')
    assert.deepEqual(batches, this.model.batches.slice(start, end))
    const lost = start > place
    if (lost) assert.ok(start < this.model.first, 'what is told as lost is not kept any more')
    const before = batches[0]?.index ?? this.model.indexAt(start) + 1
    if (lost) assert.deepEqual(gap, { ...(early ?? { after: index, reason: 'lag' }), before })
    else assert.deepEqual(gap, early)
    this.#stand = { place: end, index: this.model.indexAt(end) }
  }

  ends(error: unknown): void {
    assert.equal(error, this.model.error)
    assert.ok(this.#stand.place >= this.model.last, 'the error comes after everything else')
  }
}

function told({ gap, batches }: Delivery<Tiny>): Told {
  return gap ? { gap, batches } : { batches }
}

interface Actor {
  /** Does something, at random. Answers whether it goes on. */
  act(random: Random): boolean
  /** All that was ready has happened. */
  rest(): void
}

class PullActor implements Actor {
  readonly #story: Story
  readonly #reader: BufferReader<Tiny>
  readonly #controller: AbortController | undefined
  readonly #counts: Record<string, number>
  #waiting = false
  #over = false

  constructor(
    buffer: EventBuffer<Tiny>,
    model: Model,
    from: From,
    withSignal: boolean,
    counts: Record<string, number>,
  ) {
    this.#story = new Story(model, from)
    this.#controller = withSignal ? new AbortController() : undefined
    const signal = this.#controller?.signal
    this.#reader = buffer.read(signal ? { from, signal } : { from })
    this.#counts = counts
  }

  act(random: Random): boolean {
    if (this.#over) return false
    if (this.#controller && random.oneIn(12)) {
      this.#stop(() => this.#controller?.abort(new Error('enough')))
      return !this.#over
    }
    if (random.oneIn(40)) {
      this.#stop(() => void this.#reader.return())
      return false
    }
    if (!this.#waiting) random.oneIn(3) ? this.#take() : this.#next()
    return !this.#over
  }

  rest(): void {
    if (this.#waiting) assert.ok(!this.#story.owed && !this.#story.model.error, 'nobody waits who is owed something')
  }

  #stop(how: () => void): void {
    const signal = this.#controller?.signal
    if (signal?.aborted) return
    how()
    tally(this.#counts, this.#waiting ? 'stopped while waiting' : 'stopped')
    if (!signal?.aborted || this.#waiting) this.#over = true
  }

  #take(): void {
    const aborted = this.#controller?.signal.aborted
    try {
      const delivery = this.#reader.take()
      assert.ok(!aborted, 'abort wins')
      this.#story.takesNow(delivery)
      tally(this.#counts, delivery?.gap ? 'gap taken' : 'taken')
    } catch (error) {
      this.#failed(error, aborted)
    }
  }

  #next(): void {
    const aborted = this.#controller?.signal.aborted
    const owed = this.#story.owed
    const mustWait = !aborted && !owed && !this.#story.model.error
    this.#waiting = true
    this.#reader.next().then(
      ({ done, value }) => {
        this.#waiting = false
        if (done) assert.ok(this.#over, 'only return() ends a reader without an error')
        if (done || this.#over) return
        assert.ok(!aborted, 'abort wins')
        if (!mustWait) assert.deepEqual(told(value), owed)
        this.#story.takes(value)
        tally(this.#counts, value.gap ? 'gap awaited' : 'awaited')
      },
      (error) => {
        this.#waiting = false
        this.#failed(error, aborted)
      },
    )
  }

  #failed(error: unknown, mustBeAborted: boolean | undefined): void {
    const signal = this.#controller?.signal
    const aborted = signal?.aborted && error === signal.reason
    assert.ok(aborted || !mustBeAborted, 'abort wins')
    if (!aborted) this.#story.ends(error)
    this.#over = true
    if (signal) assert.equal(getEventListeners(signal, 'abort').length, 0)
    tally(this.#counts, aborted ? 'aborted' : 'ended')
  }
}

class FollowActor implements Actor {
  readonly #story: Story
  readonly #follower: Follower<Tiny>
  #paused = false
  #over = false

  constructor(buffer: EventBuffer<Tiny>, model: Model, from: From, random: Random, counts: Record<string, number>) {
    this.#story = new Story(model, from)
    this.#follower = buffer.follow(
      (delivery) => {
        assert.ok(!this.#paused && !this.#over)
        this.#story.takesNow(delivery)
        tally(counts, delivery.gap ? 'gap followed' : 'followed')
        if (random.oneIn(20)) this.#pause()
        if (random.oneIn(40)) this.#stop()
      },
      {
        from,
        onEnd: (error) => {
          assert.ok(!this.#over)
          this.#story.ends(error)
          this.#over = true
          tally(counts, 'follower ended')
        },
      },
    )
  }

  act(random: Random): boolean {
    if (this.#over) return false
    if (random.oneIn(20)) this.#stop()
    else if (this.#paused) this.#resume()
    else if (random.oneIn(3)) this.#pause()
    return !this.#over
  }

  rest(): void {
    if (this.#paused || this.#over) return
    assert.ok(!this.#story.owed && !this.#story.model.error, 'a running follower got all, and was told of the end')
  }

  #pause(): void {
    this.#paused = true
    this.#follower.pause()
  }

  #resume(): void {
    this.#paused = false
    this.#follower.resume()
  }

  #stop(): void {
    this.#over = true
    this.#follower.stop()
  }
}

class ItemActor implements Actor {
  #item: BufferItem<Tiny>
  readonly #model: Model
  readonly #counts: Record<string, number>
  #waiting: AbortController | undefined

  constructor(item: BufferItem<Tiny>, model: Model, counts: Record<string, number>) {
    this.#item = item
    this.#model = model
    this.#counts = counts
  }

  act(random: Random): boolean {
    if (this.#waiting) {
      if (random.oneIn(8)) this.#waiting.abort(new Error('enough'))
      return true
    }
    if (random.oneIn(30)) return false
    if (random.oneIn(2)) return this.#step()
    this.#wait()
    return true
  }

  rest(): void {
    if (this.#waiting) assert.ok(this.#item.place >= this.#model.last && !this.#model.error)
  }

  #step(): boolean {
    const place = this.#item.place + 1
    const { first, last, end } = this.#model
    const lost = place <= last && place < first
    try {
      const next = this.#item.nextNoBlock()
      assert.ok(!lost)
      assert.equal(next?.place, place >= first && place <= end ? place : undefined)
      return next ? this.#walk(next) : true
    } catch (error) {
      assert.ok(lost && error instanceof SpillwayError)
      this.#lost(error, this.#model.oldest)
      return false
    }
  }

  #wait(): void {
    const controller = new AbortController()
    this.#waiting = controller
    this.#item.next({ signal: controller.signal }).then(
      (next) => {
        this.#waiting = undefined
        assert.equal(getEventListeners(controller.signal, 'abort').length, 0)
        this.#walk(next)
        tally(this.#counts, 'item awaited')
      },
      (error) => {
        this.#waiting = undefined
        assert.equal(getEventListeners(controller.signal, 'abort').length, 0)
        if (error === this.#model.error) assert.ok(this.#item.place >= this.#model.last)
        else if (error !== controller.signal.reason) this.#lost(error, error.gap.before)
        tally(this.#counts, error === controller.signal.reason ? 'item aborted' : 'item failed')
      },
    )
  }

  #walk(next: BufferItem<Tiny>): boolean {
    assert.equal(next.place, this.#item.place + 1)
    assert.equal(next.batch, this.#model.batches[next.place - 1])
    if (!next.batch) assert.equal(next.error, this.#model.error)
    this.#item = next
    return !next.error
  }

  #lost(error: SpillwayError, before: number): void {
    assert.equal(error.code, 'LAGGED')
    assert.deepEqual(error.gap, { after: this.#model.indexAt(this.#item.place), before, reason: 'lag' })
    assert.ok(this.#item.place + 1 < this.#model.first)
    tally(this.#counts, 'item lost')
  }
}

function tally(counts: Record<string, number>, what: string): void {
  counts[what] = (counts[what] ?? 0) + 1
}

/** One buffer and those who read it, doing things at random. */
class Life {
  readonly #random: Random
  readonly #counts: Record<string, number>
  readonly #capacity: number
  readonly #buffer: EventBuffer<Tiny>
  readonly #model: Model
  #actors: Actor[] = []

  constructor(random: Random, counts: Record<string, number>) {
    this.#random = random
    this.#counts = counts
    this.#capacity = 1 + random.below(12)
    const maxBytes = random.oneIn(3) ? 20 : undefined
    this.#buffer = new EventBuffer({ capacity: this.#capacity, maxBytes, sizeOf: ({ size }) => size })
    this.#model = new Model(this.#capacity, maxBytes ?? Number.POSITIVE_INFINITY)
  }

  async run(steps: number): Promise<void> {
    for (let step = 0; step < steps; step++) {
      await this.#step()
      this.#look()
    }
    if (this.#random.oneIn(2)) await this.#rest()
    this.#end()
    for (let step = 0; step < 30; step++) {
      await this.#step()
      this.#look()
    }
    await this.#rest()
  }

  #step(): Promise<void> | void {
    const random = this.#random
    const what = random.below(100)
    if (what < 25) return this.#append(1)
    if (what < 27) return this.#append(random.below(this.#capacity * 3))
    if (what < 28) return this.#refuse()
    if (what < 30) return this.#advanceHead()
    if (what < 36 && this.#actors.length < 20) this.#actors.push(this.#newActor())
    else if (what < 80 && this.#actors.length > 0) {
      const actor = random.pick(this.#actors)
      let goesOn = true
      for (let n = random.below(3); n >= 0 && goesOn; n--) goesOn = actor.act(random)
      if (!goesOn) this.#actors = this.#actors.filter((other) => other !== actor)
    } else if (what < 90) return Promise.resolve()
    else if (what < 95) return this.#buffer.flushed()
    else return this.#rest()
  }

  #append(times: number): void {
    const model = this.#model
    for (let n = model.error ? 0 : times; n > 0; n--) {
      const batch = { index: model.newest + this.#random.pick([0, 1, 1, 1, 3]), size: 1 + this.#random.below(8) }
      // Followers may be called within append, before the oldest batch is dropped.
      model.batches.push(batch)
      this.#buffer.append(batch)
      model.trim()
      tally(this.#counts, 'appended')
    }
  }

  #refuse(): void {
    const { error, newest } = this.#model
    if (newest === 0) return
    const refused = { index: error ? newest + 1 : newest - 1, size: 1 }
    assert.throws(() => this.#buffer.append(refused), withCode(error ? 'CLOSED' : 'INDEX_ORDER'))
    tally(this.#counts, 'refused')
  }

  #advanceHead(): void {
    this.#buffer.advanceHead()
    this.#model.advanceHead()
    tally(this.#counts, 'head advanced')
  }

  #end(): void {
    this.#model.error = new SpillwayError('CLOSED', 'The end.')
    this.#buffer.appendError(this.#model.error)
    this.#model.trim()
    this.#buffer.close()
  }

  /** Lets all happen that is ready to. */
  async #rest(): Promise<void> {
    await turn()
    for (const actor of this.#actors) actor.rest()
  }

  #newActor(): Actor {
    const random = this.#random
    const buffer = this.#buffer
    const model = this.#model
    const kind = random.below(4)
    const from = random.pick<From>(['latest', 'earliest', random.below(model.newest + 5)])
    if (kind === 0) return new FollowActor(buffer, model, from, random, this.#counts)
    if (kind === 1) return new PullActor(buffer, model, from, false, this.#counts)
    if (kind === 2) return new PullActor(buffer, model, from, true, this.#counts)
    return new ItemActor(random.pick([buffer.head, buffer.tail, this.#closest()]), model, this.#counts)
  }

  #closest(): BufferItem<Tiny> {
    const asked = this.#random.below(this.#model.newest + 5)
    const { item, offset } = this.#buffer.startAtClosest(asked)
    assert.equal(offset, Math.abs(item.index - asked))
    const { kept } = this.#model
    if (item.batch) assert.equal(item.batch, kept.find(({ index }) => index >= asked) ?? kept.at(-1))
    return item
  }

  #look(): void {
    const { length, kept, newest, floor, sentinel, error } = this.#model
    const buffer = this.#buffer
    assert.equal(buffer.length, length)
    assert.equal(buffer.retained, kept.length)
    assert.equal(buffer.oldestIndex, kept[0]?.index)
    assert.equal(buffer.newestIndex, newest)
    assert.equal(buffer.floor, floor)
    assert.equal(buffer.head.batch, sentinel ? undefined : kept[0])
    assert.equal(buffer.tail.batch, error ? undefined : kept.at(-1))
  }
}

test('whatever happens in whatever order, every reader gets what the model says', async () => {
  const random = seededRandom('model')
  const counts: Record<string, number> = {}
  for (let n = 0; n < lives; n++) await new Life(random, counts).run(steps)
  console.log(`${lives * steps} steps`, counts)
  for (const what of exercised) assert.ok(counts[what], what)
})

const lives = 800
const steps = 500
const exercised = [
  ...[
    'appended',
    'refused',
    'head advanced',
    'taken',
    'gap taken',
    'awaited',
    'gap awaited',
    'followed',
    'gap followed',
  ],
  ...['stopped', 'stopped while waiting', 'aborted', 'ended', 'follower ended'],
  ...['item awaited', 'item aborted', 'item lost', 'item failed'],
]
