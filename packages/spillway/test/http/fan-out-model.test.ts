import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LocalBroker } from '../../src/core/broker.ts'
import { everything, type Rights } from '../../src/core/rights.ts'
import { Encoder } from '../../src/http/fan-out/encoder.ts'
import { FanOut } from '../../src/http/fan-out/fan-out.ts'
import type { Piece, Sink } from '../../src/http/fan-out/sink.ts'
import { EventStream } from '../../src/http/fan-out/stream.ts'
import { ndjsonFormat } from '../../src/http/format.ts'
import { ManualClock } from '../support/clock.ts'
import { type Random, seededRandom } from '../support/random.ts'
import { turn } from '../support/waiting.ts'

interface Published {
  readonly topic: string
  readonly namespace: string
  readonly payload: number
}

/** What a reader wants, as options and as the model knows it. */
const shapes = [
  { options: {}, wants: () => true },
  { options: { topics: { A: ['*'] } }, wants: ({ topic }: Published) => topic === 'A' },
  { options: { topics: { B: ['*'] } }, wants: ({ topic }: Published) => topic === 'B' },
  {
    options: { topics: { A: ['*'] }, namespaces: ['x'] },
    wants: ({ topic, namespace }: Published) => topic === 'A' && (namespace === '' || namespace === 'x'),
  },
]

type Shape = (typeof shapes)[number]

/** What everybody agrees on. */
class History {
  readonly batches = new Map<number, readonly Published[]>()
  newest = 0

  wanted(index: number, { wants }: Shape): Published[] {
    return (this.batches.get(index) ?? []).filter(wants)
  }
}

/** A sink that judges every message as it comes. */
class JudgingSink implements Sink {
  readonly #history: History
  readonly #shape: Shape
  readonly #oldest: () => number | undefined
  /** Everything up to here was delivered, told as lost, or is not wanted. */
  at: number
  /** Nothing above may be delivered. */
  limit = Number.POSITIVE_INFINITY
  takes = true
  isFull = false
  state: 'open' | 'ended' | 'aborted' = 'open'
  closed: { code: string; cursor: string } | undefined
  messages = 0
  gaps = 0
  #isShut = false

  constructor(history: History, shape: Shape, at: number, oldest: () => number | undefined) {
    this.#history = history
    this.#shape = shape
    this.at = at
    this.#oldest = oldest
  }

  write({ bytes }: Piece): boolean {
    assert.equal(this.state, 'open', 'nothing is written after the end')
    assert.ok(!this.#isShut, 'nothing is written to a full sink')
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    assert.ok(text.endsWith('\n'), 'messages are whole')
    for (const line of text.slice(0, -1).split('\n')) this.#judge(JSON.parse(line))
    if (!this.takes) {
      this.isFull = true
      // A turn may have more than one write.
      queueMicrotask(() => {
        this.#isShut = this.isFull
      })
    }
    return this.takes
  }

  /** Answers whether it was full. */
  drain(): boolean {
    const wasFull = this.isFull
    this.takes = true
    this.isFull = false
    this.#isShut = false
    return wasFull
  }

  #judge(message: Record<string, unknown>): void {
    this.messages++
    assert.equal(this.closed, undefined, 'the last word is the last')
    if ('open' in message) {
      assert.equal(this.messages, 1, 'one opening, first')
    } else if ('progress' in message) {
      this.#passTo(indexOf((message.progress as { cursor: string }).cursor))
    } else if ('gap' in message) {
      this.#judgeGap(message.gap as { after: number; before: number; cursor: string })
    } else if ('closed' in message) {
      this.closed = message.closed as { code: string; cursor: string }
      this.#passTo(indexOf(this.closed.cursor))
    } else {
      this.#judgeBatch(message as unknown as { index: number; cursor: string; events: Published[] })
    }
  }

  #judgeGap({ after, before, cursor }: { after: number; before: number; cursor: string }): void {
    this.gaps++
    this.#passTo(after)
    assert.ok(before > after + 1, `a gap that is none: ${after} to ${before}`)
    assert.ok(before <= (this.#oldest() ?? Number.POSITIVE_INFINITY), 'nothing that is kept is given up')
    assert.ok(before - 1 <= this.limit, 'a gap does not tell of what came after the doubt')
    this.at = before - 1
    assert.equal(indexOf(cursor), this.at)
  }

  #judgeBatch({ index, cursor, events }: { index: number; cursor: string; events: Published[] }): void {
    assert.ok(index > this.at, `batch ${index} after ${this.at}`)
    this.#passTo(index - 1)
    assert.ok(index <= this.limit, `batch ${index} above the limit ${this.limit}`)
    const found = events.map(({ topic, namespace, payload }) => ({ topic, namespace, payload }))
    assert.deepEqual(found, this.#history.wanted(index, this.#shape))
    assert.equal(indexOf(cursor), index)
    this.at = index
  }

  /** Nothing that is wanted may lie between. */
  #passTo(index: number): void {
    assert.ok(index >= this.at, `back from ${this.at} to ${index}`)
    assert.ok(index <= this.#history.newest, 'not beyond the newest')
    for (let between = this.at + 1; between <= index; between++) {
      assert.deepEqual(this.#history.wanted(between, this.#shape), [], `batch ${between} is missing`)
    }
    this.at = index
  }

  /** Everything that there is has come. */
  checkAll(): void {
    this.#passTo(this.#history.newest)
  }

  isWaiting(): boolean {
    return this.isFull
  }

  taken(): number {
    return this.messages
  }

  end(): void {
    this.state = 'ended'
  }

  abort(): void {
    this.state = 'aborted'
  }
}

function indexOf(cursor: string): number {
  return Number(cursor.split(':')[1])
}

interface Reader {
  readonly sink: JudgingSink
  readonly stream: EventStream
  readonly token: string
  readonly shape: number
}

interface Question {
  settle(granted: boolean): void
}

/** One random life of a fan-out. */
class Life {
  readonly happened: Record<string, number> = {}
  readonly #random: Random
  readonly #clock = new ManualClock()
  readonly #questions: Question[] = []
  readonly #history = new History()
  readonly #readers = new Set<Reader>()
  readonly #encoder = new Encoder(ndjsonFormat(1000))
  readonly #broker: LocalBroker
  readonly #fanOut: FanOut
  readonly #actions: readonly (readonly [share: number, act: () => void | Promise<void>])[]
  readonly #roundInterval: number
  #isAsking = false
  #tokens = 0
  #payloads = 0

  constructor(random: Random, highWaterMark: number, roundInterval: number) {
    this.#roundInterval = roundInterval
    this.#random = random
    const authorize = () => (this.#isAsking ? this.#ask() : everything)
    this.#broker = new LocalBroker({ clock: this.#clock, capacity: 30, authorize })
    this.#fanOut = new FanOut(this.#broker, this.#clock, {
      heartbeat: 1000,
      stallTimeout: 60_000,
      highWaterMark,
      roundInterval,
    })
    this.#actions = [
      [4, () => this.#join()],
      [36, () => this.#publish()],
      [5, () => this.#flood()],
      [15, () => this.#clock.runDeferred()],
      [10, () => this.#fill()],
      [10, () => this.#drain(this.#one())],
      [4, () => this.#leave(this.#one())],
      [2, () => this.#revoke()],
      [3, () => this.#recheck()],
      [5, () => this.#answer()],
      [4, () => this.#clock.advance(this.#random.below(1500))],
      [2, () => turn()],
    ]
  }

  async step(): Promise<void> {
    this.#clock.perLook = this.#random.pick([0, 0, 0, 1, 9])
    await this.#choose()()
    await Promise.resolve()
    for (const reader of this.#readers) this.#look(reader)
  }

  /** Everybody takes all, and then has all. */
  async check(): Promise<void> {
    this.#clock.perLook = 0
    while (this.#questions.length > 0) this.#answer()
    await turn()
    for (const reader of this.#readers) {
      this.#liftLimit(reader)
      this.#drain(reader)
    }
    for (let turns = 0; turns < 200 && (this.#clock.deferred > 0 || turns < 2); turns++) {
      this.#clock.advance(this.#roundInterval)
      this.#clock.runDeferred()
      await turn()
    }
    for (const { sink, stream } of this.#readers) {
      if (stream.subscription.closed) continue
      sink.checkAll()
      this.#count('checked')
    }
  }

  async end(): Promise<void> {
    for (const reader of [...this.#readers]) this.#leave(reader)
    await turn()
    this.#clock.runDeferred()
    await turn()
    this.#clock.advance(this.#roundInterval)
    assert.deepEqual([this.#fanOut.size, this.#broker.status.subscriptions, this.#clock.timers], [0, 0, 0])
  }

  #choose(): () => void | Promise<void> {
    if (this.#readers.size < 45) return () => this.#join()
    let left = this.#random.below(100)
    for (const [share, act] of this.#actions) {
      left -= share
      if (left < 0) return act
    }
    throw new Error('the shares are not 100 in all')
  }

  #count(what: string, by = 1): void {
    this.happened[what] = (this.happened[what] ?? 0) + by
  }

  #one(): Reader {
    return this.#random.pick([...this.#readers])
  }

  #ask(): Promise<Rights> {
    return new Promise((resolve, reject) => {
      this.#questions.push({ settle: (granted) => (granted ? resolve(everything) : reject(new Error('refused'))) })
    })
  }

  #join(from?: { cursor: string; shape: number }): void {
    if (this.#readers.size >= 90) return
    const random = this.#random
    const shape = from?.shape ?? (random.oneIn(3) ? random.below(shapes.length) : 0)
    const wanted = shapes[shape] as Shape
    const token = random.oneIn(3) ? `t${this.#tokens}` : `t${++this.#tokens}`
    const start = from?.cursor ?? (random.oneIn(4) ? 'earliest' : 'latest')
    const subscription = this.#broker.subscribe({ ...wanted.options, token, onLag: 'skip', from: start })
    const oldest = () => this.#broker.status.oldestIndex
    const at = from ? indexOf(from.cursor) : start === 'latest' ? this.#history.newest : this.#broker.status.floor
    const sink = new JudgingSink(this.#history, wanted, at, oldest)
    const stream = new EventStream(this.#fanOut, subscription, {
      encoder: this.#encoder,
      shape: String(shape),
      stallTimeout: 60_000,
      maxAge: 20_000 + random.below(100_000),
    })
    stream.open(sink)
    this.#readers.add({ sink, stream, token, shape })
    this.#count('joined')
  }

  async #publish(): Promise<void> {
    const random = this.#random
    const index = this.#history.newest + 1 + (random.oneIn(10) ? random.below(5) : 0)
    const events = Array.from({ length: 1 + random.below(3) }, () => ({
      topic: random.pick(['A', 'A', 'B']),
      namespace: random.pick(['', 'x', 'y']),
      payload: this.#payloads++,
    }))
    this.#history.batches.set(index, events)
    this.#history.newest = index
    const typed = events.map((event) => ({ ...event, type: 't' }))
    await this.#broker.publish(typed, { index })
    this.#count('published')
  }

  async #flood(): Promise<void> {
    for (let n = this.#random.below(40); n > 0; n--) await this.#publish()
  }

  #fill(): void {
    this.#one().sink.takes = false
  }

  #drain({ sink, stream }: Reader): void {
    if (!sink.drain()) return
    stream.drained()
    this.#count('drained')
  }

  #leave(reader: Reader): void {
    this.#readers.delete(reader)
    reader.stream.gone()
    this.#count('gaps', reader.sink.gaps)
    this.#count('gone')
  }

  /** From here on, readers with the token get nothing new. */
  #limit(token: string): void {
    for (const reader of this.#readers) {
      if (reader.token === token) reader.sink.limit = Math.min(reader.sink.limit, this.#history.newest)
    }
  }

  #revoke(): void {
    const { token } = this.#one()
    this.#limit(token)
    this.#broker.revoke(token)
    this.#count('revoked')
  }

  #recheck(): void {
    const { token } = this.#one()
    this.#limit(token)
    this.#isAsking = true
    this.#broker.recheck(token)
    this.#isAsking = false
    this.#count('rechecked')
  }

  #answer(): void {
    const [question] = this.#questions.splice(this.#random.below(this.#questions.length), 1)
    if (!question) return
    const granted = !this.#random.oneIn(4)
    question.settle(granted)
    this.#count(granted ? 'granted' : 'refused')
  }

  /** Access that was granted again lifts the limit. */
  #liftLimit({ sink, stream: { subscription } }: Reader): void {
    if (!subscription.closed && subscription.hold === Number.POSITIVE_INFINITY) sink.limit = subscription.hold
  }

  /** Replaces a reader whose stream is over by one that resumes, or by none. */
  #look(reader: Reader): void {
    this.#liftLimit(reader)
    const { sink, shape } = reader
    if (sink.state === 'open') return
    this.#leave(reader)
    if (!sink.closed) return
    this.#count(`closed ${sink.closed.code}`)
    if (this.#random.oneIn(2)) this.#join({ cursor: sink.closed.cursor, shape })
  }
}

const settings = [
  { name: 'as it is by default', highWaterMark: 16_384, roundInterval: 0, steps: 30_000 },
  { name: 'in rounds, and a few batches to a write', highWaterMark: 200, roundInterval: 10, steps: 10_000 },
]

for (const { name, highWaterMark, roundInterval, steps } of settings) {
  test(`each of many readers gets every batch it wants once, whole and in order, or is told which it lost: ${name}`, async () => {
    const life = new Life(seededRandom('fan-out model'), highWaterMark, roundInterval)
    for (let step = 1; step <= steps; step++) {
      await life.step()
      if (step % 300 === 0) await life.check()
    }
    await life.end()
    const { happened } = life
    console.log(JSON.stringify(happened))
    for (const what of [
      'joined',
      'published',
      'drained',
      'gone',
      'revoked',
      'rechecked',
      'granted',
      'refused',
      'gaps',
    ]) {
      assert.ok((happened[what] ?? 0) > 20, `${what} happened: ${JSON.stringify(happened)}`)
    }
    assert.ok((happened['closed RENEW'] ?? 0) > 5, 'streams were renewed')
  })
}
