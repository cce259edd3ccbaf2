import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LocalBroker, type SubscribeOptions } from '../../src/core/broker.ts'
import { ndjsonFormat, sseFormat } from '../../src/http/format.ts'
import { Encoder, EventStream, type Sink, Streams } from '../../src/http/stream.ts'
import { ManualClock } from '../support/clock.ts'
import { turn } from '../support/waiting.ts'

/** A sink whose peer takes bytes, or does not. */
class ManualSink implements Sink {
  readonly writes: Uint8Array[] = []
  /** Whether the peer takes what is written. */
  takes = true
  state: 'open' | 'ended' | 'aborted' = 'open'
  #waiting = 0
  #taken = 0

  write(bytes: Uint8Array): boolean {
    assert.equal(this.state, 'open', 'nothing is written after the end')
    assert.equal(this.#waiting, 0, 'nothing is written to a sink that is full')
    this.writes.push(bytes)
    if (this.takes) this.#taken += bytes.length
    else this.#waiting += bytes.length
    return this.takes
  }

  isWaiting(): boolean {
    return this.#waiting > 0
  }

  taken(): number {
    return this.#taken
  }

  /** The peer takes some of what waits. */
  take(bytes: number): void {
    this.#taken += bytes
    this.#waiting -= bytes
  }

  /** The peer takes all that waits. */
  drain(): void {
    this.take(this.#waiting)
  }

  end(): void {
    this.state = 'ended'
  }

  abort(): void {
    this.state = 'aborted'
  }

  get lines(): string[] {
    return Buffer.concat(this.writes).toString().split('\n').slice(0, -1)
  }
}

const stallTimeout = 30_000

function setup({ heartbeat = 1000, capacity = 100 } = {}) {
  const clock = new ManualClock()
  const broker = new LocalBroker({ clock, capacity })
  const streams = new Streams(clock, heartbeat, stallTimeout)
  const encoder = new Encoder(ndjsonFormat(1000))
  const open = (options: SubscribeOptions = {}) => {
    const subscription = broker.subscribe({ onLag: 'skip', ...options })
    const place = () => ({ cursor: subscription.cursor, index: subscription.index, oldest: undefined, newest: 0 })
    const sink = new ManualSink()
    const stream = new EventStream(streams, subscription, encoder, place, stallTimeout)
    stream.open(sink)
    return { sink, stream, subscription }
  }
  const publish = (payload: unknown = null) => broker.publish({ topic: 'T', type: 't', payload })
  return { clock, broker, streams, encoder, open, publish }
}

test('a silent stream gets a sign of life within every heartbeat', async () => {
  const { clock, open } = setup({ heartbeat: 1000 })
  const { sink } = open()
  for (let beats = 1; beats <= 20; beats++) {
    const before = sink.lines.length
    clock.advance(1001)
    assert.ok(sink.lines.length > before, `heartbeat ${beats}`)
    assert.match(sink.lines.at(-1) as string, /^\{"progress":/)
  }
  assert.ok(sink.lines.length <= 25, `${sink.lines.length} lines in 20 heartbeats`)
})

test('a stream that is busy gets no signs of life', async () => {
  const { clock, open, publish } = setup({ heartbeat: 1000 })
  const { sink } = open()
  for (let n = 0; n < 40; n++) {
    clock.advance(500)
    await publish()
    await turn()
  }
  assert.equal(sink.lines.filter((line) => line.includes('progress')).length, 0)
  assert.equal(sink.lines.length, 41)
})

test('a stream that was busy and falls silent gets a sign of life within a heartbeat', async () => {
  const { clock, open, publish } = setup({ heartbeat: 1000 })
  const { sink } = open()
  clock.advance(730)
  await publish()
  await turn()
  clock.advance(1001)
  assert.match(sink.lines.at(-1) as string, /^\{"progress":/)
})

test('a sink that is full gets nothing, not even signs of life, and everything once it drains', async () => {
  const { clock, open, publish } = setup()
  const { sink, stream } = open()
  await turn()
  sink.takes = false
  await publish(1)
  await turn()
  assert.equal(sink.lines.length, 2)
  for (let n = 2; n <= 10; n++) await publish(n)
  clock.advance(stallTimeout / 2)
  await turn()
  assert.equal(sink.lines.length, 2)
  sink.takes = true
  sink.drain()
  stream.drained()
  await turn()
  assert.equal(sink.lines.length, 11)
  assert.equal(sink.writes.length, 3, 'what waited goes out as one write')
})

test('one write is at most 64 KiB and one batch, however much waits', async () => {
  const { clock, open, publish } = setup()
  const { sink, stream } = open()
  await turn()
  sink.takes = false
  const size = 40_000
  await publish('x')
  await turn()
  for (let n = 0; n < 50; n++) await publish('x'.repeat(size))
  for (let drains = 0; drains < 60 && sink.lines.length < 52; drains++) {
    const before = sink.writes.length
    sink.drain()
    stream.drained()
    await turn()
    clock.runDeferred()
    assert.ok(sink.writes.length - before <= 1, 'one write per drain')
  }
  assert.equal(sink.lines.length, 52)
  for (const { length } of sink.writes) assert.ok(length < 64 * 1024 + size + 200, `a write of ${length} bytes`)
})

test('the bytes of a batch are made once for all streams of a format', async () => {
  const { open, publish, encoder } = setup()
  let encoded = 0
  const { batch } = encoder.format
  encoder.format.batch = (...of) => {
    encoded++
    return batch(...of)
  }
  const readers = [open(), open(), open()]
  await publish('x')
  await turn()
  assert.equal(encoded, 1)
  const bytes = readers.map(({ sink }) => sink.writes.at(-1))
  assert.ok(bytes[0] && bytes.every((each) => each === bytes[0]), 'the very same bytes')
})

test('streams take turns: many that are ready do not hold up timers', async () => {
  const { clock, open, publish } = setup()
  const readers = Array.from({ length: 100 }, () => open())
  await turn()
  clock.perLook = 1
  await publish('x')
  await turn()
  const served = () => readers.filter(({ sink }) => sink.lines.length === 2).length
  assert.ok(served() > 0 && served() < 100, `${served()} served in the first turn`)
  for (let turns = 0; turns < 100 && served() < 100; turns++) {
    assert.equal(clock.deferred, 1)
    clock.runDeferred()
    await turn()
  }
  assert.equal(served(), 100)
})

test('the heartbeat timer runs only while a stream is open', async () => {
  const { clock, open, streams } = setup()
  assert.equal(clock.timers, 0)
  const one = open()
  const two = open()
  assert.deepEqual([clock.timers, streams.size], [1, 2])
  one.stream.gone()
  assert.deepEqual([clock.timers, streams.size], [1, 1])
  two.stream.gone()
  two.stream.gone()
  assert.deepEqual([clock.timers, streams.size], [0, 0])
  clock.advance(100_000)
  open()
  assert.equal(clock.timers, 1)
})

test('a peer that goes away in the middle of anything leaves nothing behind', async () => {
  const { broker, clock, open, publish, streams } = setup()
  for (const moment of ['opened', 'queued', 'full', 'ended']) {
    const { sink, stream, subscription } = open()
    await turn()
    if (moment === 'queued') await publish()
    if (moment === 'full') {
      sink.takes = false
      await publish()
      await turn()
    }
    if (moment === 'ended') subscription.fail(new Error('the end'))
    stream.gone()
    const { length } = sink.writes
    await publish()
    await turn()
    stream.drained()
    clock.advance(60_000)
    await turn()
    assert.equal(sink.writes.length, length, `nothing is written after the end (${moment})`)
    assert.deepEqual([streams.size, broker.status.subscriptions, clock.timers, clock.deferred], [0, 0, 0, 0], moment)
  }
})

test('a peer that takes nothing is cut off after the stall time-out, one that has nothing to take is not', async () => {
  const { broker, clock, open, publish, streams } = setup({ heartbeat: 100_000 })
  const { sink, subscription } = open()
  await turn()
  clock.advance(stallTimeout * 3)
  assert.equal(sink.state, 'open')
  sink.takes = false
  await publish()
  await turn()
  clock.advance(stallTimeout * 0.9)
  assert.equal(sink.state, 'open')
  clock.advance(stallTimeout * 0.3)
  assert.equal(sink.state, 'aborted')
  await assert.rejects(subscription.next(), { code: 'STALLED', message: 'The connection took no bytes for 30000 ms.' })
  assert.deepEqual([streams.size, broker.status.subscriptions, clock.timers], [0, 0, 0])
})

test('a peer that takes a byte now and then is not cut off', async () => {
  const { clock, open, publish } = setup()
  const { sink } = open()
  await turn()
  sink.takes = false
  await publish('x'.repeat(1000))
  await turn()
  for (let bytes = 0; bytes < 20; bytes++) {
    clock.advance(stallTimeout * 0.8)
    sink.take(1)
  }
  assert.equal(sink.state, 'open')
  clock.advance(stallTimeout * 1.2)
  assert.equal(sink.state, 'aborted')
})

test('a stream that has ended stays until its peer has taken the last word, or is cut off', async () => {
  const { clock, open, publish, streams, broker } = setup()
  const { sink, subscription } = open()
  await turn()
  sink.takes = false
  await publish()
  await turn()
  subscription.fail(new Error('the end'))
  await turn()
  assert.equal(broker.status.subscriptions, 0)
  clock.advance(stallTimeout * 1.2)
  await turn()
  assert.deepEqual([sink.state, streams.size, clock.timers], ['aborted', 0, 0])
})

test('the last word of a stream follows what was ready before it, then the sink ends', async () => {
  const { broker, open, streams } = setup()
  const { sink, stream } = open()
  await broker.publish({ topic: 'T', type: 't' })
  await turn()
  await broker.close()
  await turn()
  assert.equal(sink.state, 'ended')
  const [opening, batch, closed, ...more] = sink.lines
  assert.match(opening as string, /^\{"open":/)
  assert.match(batch as string, /^\{"index":1,/)
  assert.match(closed as string, /^\{"closed":\{"code":"SHUTDOWN",/)
  assert.deepEqual(more, [])
  stream.gone()
  assert.equal(streams.size, 0)
})

test('a failure that is no SpillwayError ends the stream without telling what it was', async () => {
  const { open, publish } = setup()
  const { sink } = open({
    filter: () => {
      throw new Error('a secret of the operator')
    },
  })
  await publish()
  await turn()
  assert.equal(sink.state, 'ended')
  assert.match(sink.lines.at(-1) as string, /"code":"INTERNAL","message":"The stream failed\."/)
  assert.ok(!sink.lines.join().includes('secret'))
})

test('retry is what the handler was told, in the opening and at the end', () => {
  const { open } = sseFormat(2500)
  assert.equal(open({ cursor: 'e:1', index: 1, oldest: 1, newest: 1 }), 'retry: 2500\nid: e:1\n\n')
})
