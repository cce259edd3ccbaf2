import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createBroker } from '../../src/core/broker.ts'
import { EventBuffer } from '../../src/core/buffer.ts'
import { memoryLog } from '../../src/core/memory-log.ts'
import type { Delivery } from '../../src/core/reader.ts'
import { everything } from '../../src/core/rights.ts'
import { drain, event, publish, shape } from '../support/brokers.ts'
import { ManualClock } from '../support/clock.ts'
import { turn, withCode } from '../support/waiting.ts'

interface Entry {
  readonly index: number
  readonly text?: string
}

const { gc } = globalThis
const needsGc = gc ? {} : { skip: 'needs node --expose-gc' }

/** Bytes on the heap once nothing is left to collect. */
async function heapUsed(): Promise<number> {
  for (let n = 0; n < 4; n++) {
    await turn()
    gc?.()
  }
  return process.memoryUsage().heapUsed
}

/** How much the heap grows while `work` is done. */
async function growth(work: () => Promise<void>): Promise<number> {
  const before = await heapUsed()
  await work()
  return (await heapUsed()) - before
}

const batches = 1_000_000
const stalled = 100
const megabyte = 2 ** 20

async function appendMany(buffer: EventBuffer<Entry>, from: number, count: number): Promise<void> {
  for (let index = from; index < from + count; index++) {
    buffer.append({ index, text: `batch ${index}` })
    if (index % 500 === 0) await buffer.flushed()
  }
}

/** Stalls readers at many places of a full buffer, and gives what shows that they are still there. */
const waysToStall: Record<string, (buffer: EventBuffer<Entry>) => () => void> = {
  items: (buffer) => {
    const item = buffer.tail
    return () => assert.throws(() => item.nextNoBlock(), withCode('LAGGED'))
  },
  'readers that pull': (buffer) => {
    const reader = buffer.read()
    return () => assert.ok(reader.take()?.gap)
  },
  'readers that pulled once and stopped': (buffer) => {
    const reader = buffer.read({ from: 'earliest' })
    assert.ok(reader.take())
    return () => assert.ok(reader.take()?.gap)
  },
  'readers with a signal that waited once and stopped': (buffer) => {
    const reader = buffer.read({ signal: new AbortController().signal })
    void reader.next()
    return () => assert.ok(reader.take()?.gap)
  },
  'readers without a signal that waited once and stopped': (buffer) => {
    const reader = buffer.read()
    void reader.next()
    return () => assert.ok(reader.take()?.gap)
  },
  'paused followers': (buffer) => {
    const deliveries: number[] = []
    const follower = buffer.follow(({ gap }) => deliveries.push(gap?.after ?? 0))
    follower.pause()
    return () => assert.deepEqual(deliveries, [])
  },
}

for (const [kind, stall] of Object.entries(waysToStall)) {
  test(`better: ${stalled} stalled ${kind} hold at most 1 MB while 1,000,000 batches pass`, needsGc, async () => {
    const buffer = new EventBuffer<Entry>({ capacity: 1024 })
    await appendMany(buffer, 1, 5000)
    const checks: (() => void)[] = []
    for (let n = 0; n < stalled; n++) {
      checks.push(stall(buffer))
      await appendMany(buffer, 5001 + n * 20, 20)
    }
    await turn()
    const grown = await growth(() => appendMany(buffer, 10_000, batches))
    console.log(`${kind}: ${Math.round(grown / 1024)} KiB`)
    assert.ok(grown <= megabyte, `${grown} bytes`)
    for (const check of checks) check()
  })
}

const waysToStallSubscriptions = {
  'were never read': () => {},
  'read once': (subscription: { take(): unknown }) => void subscription.take(),
  'read all, and are level': (subscription: { take(): unknown }) => {
    while (subscription.take());
  },
}

for (const [way, stall] of Object.entries(waysToStallSubscriptions)) {
  test(
    `better: ${stalled} stalled subscriptions that ${way} hold at most 1 MB while 1,000,000 batches pass`,
    needsGc,
    async () => {
      const broker = createBroker({ capacity: 1024 })
      const many = async (count: number): Promise<void> => {
        for (let n = 0; n < count; n += 500) {
          await broker.publishAll(Array.from({ length: 500 }, () => ({ events: [{ topic: 'Job', type: 'T' }] })))
        }
      }
      await many(5000)
      const subscriptions = Array.from({ length: stalled }, () => broker.subscribe({ from: 'earliest' }))
      for (const subscription of subscriptions) stall(subscription)
      const grown = await growth(() => many(batches))
      console.log(`subscriptions that ${way}: ${Math.round(grown / 1024)} KiB`)
      assert.ok(grown <= megabyte, `${grown} bytes`)
      for (const subscription of subscriptions) assert.throws(() => subscription.take(), withCode('LAGGED'))
    },
  )
}

test('better: a stalled item keeps nothing of what came after it', needsGc, async () => {
  const buffer = new EventBuffer<Entry>({ capacity: 2 })
  buffer.append({ index: 1 })
  const item = buffer.tail
  const later = [2, 3, 4].map((index) => {
    const batch = { index }
    buffer.append(batch)
    return new WeakRef(batch)
  })
  for (let index = 5; index < 20; index++) buffer.append({ index })
  await heapUsed()
  assert.deepEqual(
    later.map((ref) => ref.deref()),
    [undefined, undefined, undefined],
  )
  assert.equal(item.index, 1)
})

test('what was handed to readers is not kept for them', needsGc, async () => {
  const buffer = new EventBuffer<Entry>({ capacity: 4 })
  const readers = [buffer.read(), buffer.read({ signal: new AbortController().signal })]
  for (const reader of readers) void reader.next()
  buffer.follow(() => {})
  const refs = [1, 2, 3].map((index) => {
    const batch = { index }
    buffer.append(batch)
    return new WeakRef(batch)
  })
  await turn()
  while (buffer.retained > 0) buffer.advanceHead()
  await heapUsed()
  // The promise that readers shared belongs to them until they ask again.
  for (const reader of readers) reader.take()
  await heapUsed()
  assert.equal(refs.filter((ref) => ref.deref()).length, 0)
})

test('a reader that has ended is not kept by a buffer to which nothing is appended', needsGc, async () => {
  const buffer = new EventBuffer<Entry>()
  const refs = Array.from({ length: 10 }, (_, n) => {
    const controller = new AbortController()
    const reader = buffer.read({ signal: controller.signal })
    reader.next().catch(() => {})
    if (n % 2) void reader.return()
    else controller.abort()
    return new WeakRef(reader)
  })
  const followers = Array.from({ length: 10 }, () => {
    const follower = buffer.follow(() => {})
    follower.stop()
    return new WeakRef(follower)
  })
  await heapUsed()
  assert.equal([...refs, ...followers].filter((ref) => ref.deref()).length, 0)
})

test('a subscription that has ended is not kept by its broker', needsGc, async () => {
  const clock = new ManualClock()
  const broker = createBroker({ clock, authorize: () => ({ ...everything, expiresAt: clock.wall + 1e9 }) })
  const { signal } = new AbortController()
  const refs = await Promise.all(
    Array.from({ length: 10 }, async () => {
      const subscription = broker.subscribe({ topics: { Job: ['a'], '*': ['b'] }, signal })
      await subscription.ready
      subscription.next().catch(() => {})
      subscription.close()
      return new WeakRef(subscription)
    }),
  )
  await publish(broker, 'a')
  await heapUsed()
  assert.equal(refs.filter((ref) => ref.deref()).length, 0)
})

for (const [how, count] of [
  ['stalled in', 1],
  ['read all of', 300],
] as const) {
  test(
    `a reader that ${how} a page of the log keeps none of it once log and buffer have dropped it`,
    needsGc,
    async () => {
      const log = memoryLog({ capacity: 400 })
      const broker = createBroker({ log, capacity: 4 })
      const refs: WeakRef<object>[] = []
      log.follow((batch) => refs.push(new WeakRef(batch)))
      await publish(broker, ...Array.from({ length: 300 }, (_, n) => String(n)))
      const subscription = broker.subscribe({ from: 'earliest', onLag: 'skip' })
      for (let n = 0; n < count; n++) await subscription.next()
      refs.length = 300
      await broker.publishAll(Array.from({ length: 1000 }, () => ({ events: [event('later')] })))
      refs.length = 300
      await heapUsed()
      const kept = refs.filter((ref) => ref.deref()).length
      assert.ok(kept <= 1, `${kept} batches are kept by a reader that stands still`)
      assert.equal(subscription.closed, false)
    },
  )
}

/** Counts how often an index is looked at. */
class ProbedBuffer extends EventBuffer<Entry> {
  probes = 0

  override indexAt(place: number): number {
    this.probes++
    return super.indexAt(place)
  }
}

test('better: the closest start among 1,000,000 batches takes at most 21 probes', () => {
  const buffer = new ProbedBuffer({ capacity: batches })
  for (let index = 1; index <= batches; index++) buffer.append({ index: index * 2 })
  let most = 0
  for (let asked = 0; asked <= 2 * batches + 10; asked += 997) {
    buffer.probes = 0
    const { item, offset } = buffer.startAtClosest(asked)
    most = Math.max(most, buffer.probes)
    if (asked > 2 && asked <= 2 * batches) assert.deepEqual([item.index, offset], [asked + (asked % 2), asked % 2])
  }
  console.log(`at most ${most} probes`)
  assert.ok(most > 10 && most <= 21, `${most} probes`)
})

test('a publish wakes, of 10,000 subscriptions, only the one that wants it', async () => {
  const broker = createBroker()
  let looked = 0
  let woken = 0
  const filter = (): boolean => {
    looked++
    return true
  }
  for (let n = 0; n < 10_000; n++) {
    const topics = { Job: [`key ${n}`] }
    const waiting = broker.subscribe({ topics, filter }).next()
    waiting.then(() => woken++)
  }
  await publish(broker, 'key 77')
  await turn()
  assert.deepEqual([looked, woken], [1, 1])
  await broker.publish(event('nobody wants this', 'Node'))
  await turn()
  assert.deepEqual([looked, woken], [1, 1])
})

test('100,000 followers with work leave turns to timers and sockets', async () => {
  const clock = new ManualClock()
  const buffer = new EventBuffer<Entry>({ clock })
  const count = 100_000
  let served = 0
  for (let n = 0; n < count; n++) buffer.follow(() => served++)
  await turn()
  while (clock.deferred > 0) {
    clock.runDeferred()
    await turn()
  }
  // Each look at the clock stands for a millisecond of work.
  clock.perLook = 1
  buffer.append({ index: 1 })
  let turns = 0
  for (; served < count; turns++) {
    const before = served
    // What ran before this turn ends was one go: everything else in the loop has its chance now.
    await turn()
    clock.runDeferred()
    assert.ok(served - before <= 1024, `${served - before} followers in one turn`)
  }
  await turn()
  console.log(`${turns} turns`)
  assert.ok(turns > 100)
  assert.equal(served, count)
})

for (const kind of ['with a signal', 'without a signal'] as const) {
  test(`20,000 readers ${kind} that wait leave turns to timers and sockets`, async () => {
    const clock = new ManualClock()
    const buffer = new EventBuffer<Entry>({ clock })
    const { signal } = new AbortController()
    const count = 20_000
    let served = 0
    for (let n = 0; n < count; n++) {
      const reader = kind === 'with a signal' ? buffer.read({ signal: { ...quiet(signal) } }) : buffer.read()
      reader.next().then(() => served++)
    }
    clock.perLook = 5
    buffer.append({ index: 1 })
    let turns = 0
    for (; served < count; turns++) {
      await turn()
      clock.runDeferred()
    }
    console.log(`${turns} turns`)
    assert.ok(turns > 3)
  })
}

/** A signal that is never aborted, without Node's warning about many listeners. */
function quiet({ aborted, reason }: AbortSignal): {
  aborted: boolean
  reason: unknown
  addEventListener(): void
  removeEventListener(): void
} {
  return { aborted, reason, addEventListener: () => {}, removeEventListener: () => {} }
}

test('a buffer never keeps more than its capacity and one, whatever its readers do', async () => {
  const buffer = new EventBuffer<Entry>({ capacity: 8 })
  const deliveries: Delivery<Entry>[] = []
  buffer.follow((delivery) => deliveries.push(delivery)).pause()
  void buffer.tail.next().catch(() => {})
  for (let index = 1; index <= 1000; index++) {
    buffer.append({ index })
    assert.ok(buffer.retained <= 9)
  }
  await turn()
  assert.deepEqual(deliveries, [])
})

test('a subscription that comes back after a long time is told what it lost, and goes on', async () => {
  const broker = createBroker({ capacity: 4 })
  const subscription = broker.subscribe({ onLag: 'skip' })
  await publish(broker, ...Array.from({ length: 100 }, (_, n) => String(n + 1)))
  const got = await drain(subscription)
  assert.deepEqual(got.map(shape), [{ after: 0, before: 96, reason: 'lag' }, ['96'], ['97'], ['98'], ['99'], ['100']])
})
