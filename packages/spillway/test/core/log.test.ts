import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Broker, createBroker } from '../../src/core/broker.ts'
import { SpillwayError } from '../../src/core/errors.ts'
import { type Batch, encodeEvents, type Gap, type PendingBatch, type StoredBatch } from '../../src/core/event.ts'
import type { Log, LogPage } from '../../src/core/log.ts'
import { memoryLog } from '../../src/core/memory-log.ts'
import type { Subscription } from '../../src/core/subscription.ts'
import { drain, event, publish, shape, shapes } from '../support/brokers.ts'
import { ManualClock } from '../support/clock.ts'
import { type Random, seededRandom } from '../support/random.ts'
import { deferred, outcomeOf, turn, withCode } from '../support/waiting.ts'

const pending = (key: string, index?: number): PendingBatch => encodeEvents([event(key)], index)

/** The same log with some of its methods replaced. */
function changed(log: Log, changes: Partial<Log>): Log {
  return {
    epoch: log.epoch,
    get floor() {
      return log.floor
    },
    get last() {
      return log.last
    },
    append: (batches, options) => log.append(batches, options),
    read: (after, limit) => log.read(after, limit),
    locate: (start) => log.locate(start),
    follow: (listener) => log.follow(listener),
    close: () => log.close(),
    ...changes,
  }
}

test('a memory log gives growing indexes, and keeps what was stored in order', async () => {
  const log = memoryLog()
  assert.deepEqual([log.floor, log.last], [0, 0])
  assert.deepEqual(await log.append([pending('a'), pending('b', 10), pending('c')]), {
    indexes: [1, 10, 11],
    duplicate: false,
  })
  assert.deepEqual([log.floor, log.last], [0, 11])
  const { floor, batches } = await log.read(0, 100)
  assert.equal(floor, 0)
  assert.deepEqual(
    batches.map(({ index, epoch }) => [index, epoch]),
    [1, 10, 11].map((index) => [index, log.epoch]),
  )
})

test('a memory log reads pages after an index', async () => {
  const log = memoryLog()
  await log.append(['a', 'b', 'c', 'd'].map((key) => pending(key)))
  const page = async (after: number, limit: number) => (await log.read(after, limit)).batches.map(({ index }) => index)
  assert.deepEqual(await page(0, 2), [1, 2])
  assert.deepEqual(await page(2, 1), [3])
  assert.deepEqual(await page(2, 100), [3, 4])
  assert.deepEqual(await page(4, 100), [])
  assert.deepEqual(await page(9, 100), [])
})

test('a memory log stores all or nothing', async () => {
  const log = memoryLog({ maxBytes: 100 })
  const large = encodeEvents([{ ...event('x'), payload: 'x'.repeat(200) }])
  await assert.rejects(log.append([pending('a'), large]), withCode('TOO_LARGE'))
  await assert.rejects(log.append([pending('a'), pending('b', 1)]), withCode('INDEX_ORDER'))
  assert.deepEqual([log.last, (await log.read(0, 10)).batches], [0, []])
})

test('a memory log tells its floor, which says that batches before a page are gone', async () => {
  const log = memoryLog({ capacity: 2 })
  await log.append(['a', 'b', 'c', 'd', 'e'].map((key) => pending(key)))
  assert.equal(log.floor, 2)
  const { floor, batches } = await log.read(0, 1)
  assert.deepEqual([floor, batches[0]?.index], [2, 3])
})

test('a memory log calls its followers with every batch in order, until they stop', async () => {
  const log = memoryLog()
  await log.append([pending('before')])
  const seen: number[][] = [[], []]
  const stop = log.follow(({ index }) => seen[0]?.push(index))
  log.follow(({ index }) => seen[1]?.push(index))
  await log.append([pending('a'), pending('b')])
  stop()
  stop()
  await log.append([pending('c')])
  assert.deepEqual(seen, [
    [2, 3],
    [2, 3, 4],
  ])
})

test('a memory log that was closed stores nothing more, and keeps its floor', async () => {
  const log = memoryLog()
  await log.append([pending('a')])
  await log.close()
  await log.close()
  await assert.rejects(log.append([pending('b')]), withCode('CLOSED'))
  assert.deepEqual([log.last, log.floor], [1, 0])
})

test('a memory log forgets what is too old', async () => {
  const clock = new ManualClock()
  const log = memoryLog({ clock, maxAge: 1000 })
  await log.append([pending('a')])
  await turn()
  clock.advance(2000)
  const { floor, batches } = await log.read(0, 10)
  assert.deepEqual([floor, batches], [1, []])
})

test('every memory log has an epoch of its own', () => {
  assert.notEqual(memoryLog().epoch, memoryLog().epoch)
})

test('a log that fails rejects the publish with LOG_FAILED and its cause, and nothing is stored', async () => {
  const cause = new Error('the disk is full')
  let failing = true
  const kept = memoryLog()
  const log = changed(kept, { append: (batches) => (failing ? Promise.reject(cause) : kept.append(batches)) })
  const broker = createBroker({ log })
  const subscription = broker.subscribe()
  const error = await broker.publish(event('a')).catch((error: unknown) => error)
  assert.ok(withCode('LOG_FAILED')(error))
  assert.equal((error as SpillwayError).cause, cause)
  assert.equal((error as SpillwayError).retryable, true)
  failing = false
  await publish(broker, 'b')
  assert.deepEqual(await shapes(subscription), [['b']])
  assert.equal(broker.status.newestIndex, 1)
})

test('a log’s own SpillwayError reaches the publisher as it is', async () => {
  const refusal = new SpillwayError('INDEX_ORDER', 'Not now.')
  const broker = createBroker({ log: changed(memoryLog(), { append: () => Promise.reject(refusal) }) })
  await assert.rejects(broker.publish(event('a')), (error) => error === refusal)
})

test('a log that cannot be read ends the reader with LOG_FAILED, and its cursor resumes', async () => {
  const cause = new Error('the disk is gone')
  const kept = memoryLog({ capacity: 100 })
  let failing = true
  const log = changed(kept, { read: (after, limit) => (failing ? Promise.reject(cause) : kept.read(after, limit)) })
  const broker = createBroker({ log, capacity: 2 })
  await publish(broker, 'a', 'b', 'c', 'd', 'e')
  const error = await broker
    .subscribe({ from: 1 })
    .next()
    .catch((error: unknown) => error)
  assert.ok(withCode('LOG_FAILED')(error))
  assert.equal((error as SpillwayError).cause, cause)
  assert.equal(broker.status.subscriptions, 0)
  failing = false
  assert.deepEqual(await shapes(broker.subscribe({ from: (error as SpillwayError).cursor ?? '' })), [
    ['b'],
    ['c'],
    ['d'],
    ['e'],
  ])
})

test('a reader older than the buffer reads the log first, and is told no gap', async () => {
  const broker = createBroker({ log: memoryLog({ capacity: 10_000 }), capacity: 4 })
  const keys = Array.from({ length: 1000 }, (_, n) => String(n + 1))
  await publish(broker, ...keys)
  assert.deepEqual([broker.status.oldestIndex, broker.status.floor], [996, 0])
  assert.deepEqual((await shapes(broker.subscribe({ from: 'earliest' }))).flat(), keys)
  assert.deepEqual((await shapes(broker.subscribe({ from: 500 }))).flat(), keys.slice(500))
  assert.deepEqual((await shapes(broker.subscribe({ from: `${broker.status.epoch}:10` }))).flat(), keys.slice(10))
  assert.deepEqual((await shapes(broker.subscribe({ from: { at: 7 } }))).flat(), keys.slice(6))
  const narrow = broker.subscribe({ from: 'earliest', topics: { Job: ['3', '700', '1000'] } })
  assert.deepEqual((await shapes(narrow)).flat(), ['3', '700', '1000'])
})

test('a reader that waits for a page of the log does not miss what is published meanwhile', async () => {
  const kept = memoryLog({ capacity: 1000 })
  const pages: (() => void)[] = []
  const read = async (after: number, limit: number): Promise<LogPage> => {
    const page = kept.read(after, limit)
    const { promise, resolve } = deferred()
    pages.push(resolve)
    await promise
    return page
  }
  const broker = createBroker({ log: changed(kept, { read }), capacity: 2 })
  await publish(broker, 'a', 'b', 'c', 'd', 'e')
  const subscription = broker.subscribe({ from: 'earliest' })
  assert.equal(subscription.take(), undefined)
  const waiting = subscription.next()
  await publish(broker, 'f', 'g', 'h', 'i', 'j')
  assert.equal((await outcomeOf(waiting)).state, 'pending')
  assert.equal(pages.length, 1, 'one page at a time')
  pages[0]?.()
  assert.deepEqual(shape(await waiting), ['a'])
  const rest: unknown[] = []
  while (rest.length < 9) {
    const next = subscription.next()
    await turn()
    pages.at(-1)?.()
    rest.push(shape(await next))
  }
  assert.deepEqual(rest.flat(), ['b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'])
})

test('a reader that ends while it waits for a page of the log gets nothing more', async () => {
  const kept = memoryLog({ capacity: 1000 })
  const { promise, resolve } = deferred()
  const log = changed(kept, { read: (after, limit) => promise.then(() => kept.read(after, limit)) })
  const broker = createBroker({ log, capacity: 2 })
  await publish(broker, 'a', 'b', 'c', 'd', 'e')
  const subscription = broker.subscribe({ from: 'earliest' })
  const waiting = assert.rejects(subscription.next(), withCode('CLOSED'))
  subscription.close()
  resolve()
  await waiting
  await turn()
  assert.throws(() => subscription.take(), withCode('CLOSED'))
})

test('a reader that the log overtakes is told the gap', async () => {
  const broker = createBroker({ log: memoryLog({ capacity: 4 }), capacity: 2 })
  await publish(broker, 'a', 'b', 'c', 'd', 'e')
  const subscription = broker.subscribe({ from: 'earliest', onLag: 'skip' })
  await publish(broker, 'f', 'g', 'h')
  assert.deepEqual(await shapes(subscription), [
    { after: 0, before: 4, reason: 'lag' },
    ...['d', 'e', 'f', 'g', 'h'].map((key) => [key]),
  ])
})

test('a resume point that neither the buffer nor the log keeps is told as a gap', async () => {
  const broker = createBroker({ log: memoryLog({ capacity: 4 }), capacity: 2 })
  await publish(broker, 'a', 'b', 'c', 'd', 'e', 'f', 'g')
  assert.deepEqual([broker.status.floor, broker.status.oldestIndex], [2, 5])
  const subscription = broker.subscribe({ from: 1, onLag: 'skip' })
  assert.deepEqual(await shapes(subscription), [
    { after: 1, before: 3, reason: 'retention' },
    ...['c', 'd', 'e', 'f', 'g'].map((key) => [key]),
  ])
  await assert.rejects(broker.subscribe({ from: 1 }).next(), withCode('LAGGED', /after index 1 and before 3/))
  assert.deepEqual((await shapes(broker.subscribe({ from: 2 }))).length, 5)
})

test('a broker goes on with the history of its log', async () => {
  const log = memoryLog()
  await log.append(['a', 'b', 'c'].map((key) => pending(key)))
  const broker = createBroker({ log })
  assert.deepEqual([broker.status.newestIndex, broker.status.floor, broker.status.epoch], [3, 0, log.epoch])
  assert.equal(await broker.publish(event('d')), 4)
  assert.deepEqual(await shapes(broker.subscribe({ from: 'earliest' })), [['a'], ['b'], ['c'], ['d']])
  assert.deepEqual(await shapes(broker.subscribe({ from: 2 })), [['c'], ['d']])
  assert.deepEqual(await shapes(broker.subscribe()), [])
})

test('a broker over a log with a history serves the newest of it to who asks beyond the tail', async () => {
  const log = memoryLog()
  await log.append(['a', 'b', 'c'].map((key) => pending(key)))
  const broker = createBroker({ log })
  assert.deepEqual(await shapes(broker.subscribe({ from: { at: 3 } })), [['c']])
  assert.deepEqual(await shapes(broker.subscribe({ from: { at: 9 } })), [['c']])
})

test('two brokers over one log see the same batches in the same order', async () => {
  const log = memoryLog()
  const [first, second] = [createBroker({ log }), createBroker({ log })]
  const subscriptions = [first.subscribe(), second.subscribe()]
  await publish(first, 'a')
  await publish(second, 'b')
  await publish(first, 'c')
  for (const subscription of subscriptions) assert.deepEqual(await shapes(subscription), [['a'], ['b'], ['c']])
})

test('a batch that is too large for the buffer of one broker does not disturb the other over the same log', async () => {
  const log = memoryLog()
  const [small, large] = [createBroker({ log, maxBytes: 100 }), createBroker({ log })]
  const subscriptions = { small: small.subscribe({ onLag: 'skip' }), large: large.subscribe() }
  const big = { ...event('big'), payload: 'x'.repeat(1000) }
  assert.deepEqual(
    await large.publishAll([{ events: [event('a')] }, { events: [big] }, { events: [event('b')] }]),
    [1, 2, 3],
  )
  await publish(large, 'c')
  assert.deepEqual(await shapes(subscriptions.large), [['a'], ['big'], ['b'], ['c']])
  const seen = await shapes(subscriptions.small)
  const complete = [['a'], ['big'], ['b'], ['c']]
  const told = [['a'], { after: 1, before: 3, reason: 'lag' }, ['b'], ['c']]
  assert.ok(
    [complete, told].some((expected) => JSON.stringify(expected) === JSON.stringify(seen)),
    JSON.stringify(seen),
  )
})

test('a reader that waits is woken by a batch that is too large for the buffer, and finds it in the log', async () => {
  const log = memoryLog()
  const [small, large] = [createBroker({ log, maxBytes: 100 }), createBroker({ log })]
  const waiting = small.subscribe().next()
  const narrow = small.subscribe({ topics: { Job: ['wanted'] } })
  const narrowWaiting = narrow.next()
  await large.publish({ ...event('big'), payload: 'x'.repeat(1000) })
  assert.deepEqual(shape(await waiting), ['big'])
  assert.equal((await outcomeOf(narrowWaiting)).state, 'pending')
  await large.publish({ ...event('wanted'), payload: 'x'.repeat(1000) })
  assert.deepEqual(shape(await narrowWaiting), ['wanted'])
  await publish(small, 'a', 'wanted')
  assert.deepEqual(await shapes(narrow), [['wanted']])
})

test('closing a broker closes its log', async () => {
  const log = memoryLog()
  const broker = createBroker({ log })
  await broker.close()
  await assert.rejects(log.append([pending('a')]), withCode('CLOSED'))
})

interface Pace {
  readonly subscription: Subscription
  readonly wanted: (key: string) => boolean
  readonly from: number
  readonly oneIn: number
  readonly got: number[]
  readonly gaps: Gap[]
}

/** Everything up to `to` that a reader wanted, minus what it was told to have lost. */
function owed({ from, wanted, gaps }: Pace, to: number): number[] {
  const indexes = Array.from({ length: to - from }, (_, n) => from + n + 1)
  return indexes.filter(
    (index) => wanted(String(index % 10)) && !gaps.some(({ after, before }) => index > after && index < before),
  )
}

function check(pace: Pace, published: number, floors: readonly number[]): void {
  assert.deepEqual(
    pace.got,
    owed(pace, published),
    'everything comes once and in order, and a gap holds nothing that came',
  )
  let last = pace.from
  for (const gap of pace.gaps) {
    assert.equal(gap.reason, 'lag')
    assert.ok(gap.after >= last && gap.before > gap.after + 1, 'gaps do not overlap and are not empty')
    assert.ok(floors.includes(gap.before - 1), 'a gap ends exactly where something is kept')
    last = gap.before - 1
  }
}

function note({ got, gaps }: Pace, batch: Batch | undefined): void {
  if (batch?.gap) gaps.push(batch.gap)
  else if (batch) got.push(batch.index)
}

/** A new reader that wants all or a tenth of what is published, from some place that is still kept. */
function newPace(broker: Broker, random: Random): Pace {
  const { floor, newestIndex } = broker.status
  const key = random.oneIn(2) ? String(random.below(10)) : undefined
  const from = Math.max(floor, random.pick([0, newestIndex, random.below(newestIndex + 1)]))
  const subscription = broker.subscribe({ from, topics: { Job: [key ?? '*'] }, onLag: 'skip' })
  const wanted = (other: string): boolean => key === undefined || key === other
  return { subscription, wanted, from, oneIn: random.pick([1, 2, 10, 100]), got: [], gaps: [] }
}

async function slide(random: Random): Promise<number> {
  const broker = createBroker({ log: memoryLog({ capacity: 20 + random.below(100) }), capacity: 1 + random.below(10) })
  const paces: Pace[] = []
  const floors: number[] = []
  let published = 0
  for (let step = 0; step < 400; step++) {
    if (step % 40 === 0) paces.push(newPace(broker, random))
    for (let n = random.below(random.oneIn(10) ? 50 : 4); n > 0; n--) {
      void broker.publish(event(String(++published % 10)))
      floors.push(broker.status.floor)
    }
    for (const pace of paces) if (random.oneIn(pace.oneIn)) note(pace, pace.subscription.take())
    if (random.oneIn(2)) await (random.oneIn(2) ? turn() : null)
  }
  for (const pace of paces) {
    for (const batch of await drain(pace.subscription)) note(pace, batch)
    check(pace, published, floors)
    assert.equal(pace.subscription.cursor, `${broker.status.epoch}:${published}`)
    assert.equal(pace.subscription.lag, 0)
  }
  return paces.reduce((sum, { gaps }) => sum + gaps.length, 0)
}

test('readers of every pace slide from the log into the buffer and back, and miss nothing that they are not told', async () => {
  const random = seededRandom('slide')
  let gaps = 0
  for (let n = 0; n < 60; n++) gaps += await slide(random)
  console.log(`${gaps} gaps`)
  assert.ok(gaps > 0)
})

test('the type of a batch is the same in the log and in the buffer', async () => {
  const log = memoryLog()
  const followed: StoredBatch[] = []
  log.follow((batch) => followed.push(batch))
  await log.append([pending('a')])
  assert.equal((await log.read(0, 1)).batches[0], followed[0])
})

test('a broker over a long history tells a foreign reader, and then gives it all of that history', async () => {
  const log = memoryLog({ capacity: 1000 })
  await publish(createBroker({ log, capacity: 10 }), ...Array.from({ length: 300 }, (_, n) => `k${n + 1}`))
  const broker = createBroker({ log, capacity: 10 })
  const [gap, ...rest] = await shapes(broker.subscribe({ from: 'other-epoch:5', onLag: 'skip' }))
  assert.deepEqual(gap, { after: 5, before: 1, reason: 'epoch' })
  assert.deepEqual(
    rest,
    Array.from({ length: 300 }, (_, n) => [`k${n + 1}`]),
  )
})

test('a reader that is older than all of a long history is told, and then gets all pages of it', async () => {
  const log = memoryLog({ capacity: 600 })
  await publish(createBroker({ log, capacity: 10 }), ...Array.from({ length: 1000 }, (_, n) => `k${n + 1}`))
  const broker = createBroker({ log, capacity: 10 })
  const [gap, ...rest] = (await drain(broker.subscribe({ from: 5, onLag: 'skip' }))).map(
    (batch) => batch.gap ?? batch.index,
  )
  assert.deepEqual(gap, { after: 5, before: 400, reason: 'retention' })
  assert.deepEqual(
    rest,
    Array.from({ length: 601 }, (_, n) => 400 + n),
  )
})

test('a broker that is told late of what the log has repeats nothing to a reader who knows it already', async () => {
  const log = memoryLog()
  const late: (() => void)[] = []
  const lagging: Log = {
    get epoch() {
      return log.epoch
    },
    get floor() {
      return log.floor
    },
    get last() {
      return log.last
    },
    append: (batches) => log.append(batches),
    read: (after, limit) => log.read(after, limit),
    locate: (start) => log.locate(start),
    close: () => log.close(),
    follow: (listener) => log.follow((batch) => late.push(() => listener(batch))),
  }
  const broker = createBroker({ log: lagging })
  await publish(broker, 'a', 'b', 'c')
  const subscription = broker.subscribe({ from: 2 })
  for (const tell of late.splice(0)) tell()
  assert.deepEqual(await shapes(subscription), [['c']])
})

test('a log whose read fails ends the reader with the cause, also if it throws at once', async () => {
  const log = memoryLog({ capacity: 100 })
  await publish(createBroker({ log }), 'a', 'b', 'c')
  const cause = new Error('no such page')
  const broken: Log = Object.create(log, {
    epoch: { value: log.epoch },
    last: { value: 3 },
    floor: { value: 0 },
    follow: { value: () => () => {} },
    read: {
      value: () => {
        throw cause
      },
    },
  })
  const subscription = createBroker({ log: broken }).subscribe({ from: 'earliest' })
  await assert.rejects(subscription.next(), (error) => error instanceof SpillwayError && error.cause === cause)
  await assert.rejects(subscription.next(), withCode('LOG_FAILED'))
})

test('a listener of the log that throws fails for itself: the events are stored, and others are told', async (t) => {
  const log = memoryLog()
  const broker = createBroker({ log })
  const mistake = new Error('mine')
  log.follow(() => {
    throw mistake
  })
  const surfaced = new Promise((resolve) => {
    const listeners = process.listeners('unhandledRejection')
    process.removeAllListeners('unhandledRejection')
    process.once('unhandledRejection', resolve)
    t.after(() => {
      for (const listener of listeners) process.on('unhandledRejection', listener)
    })
  })
  const subscription = broker.subscribe()
  assert.equal(await broker.publish(event('a')), 1)
  assert.deepEqual(await shapes(subscription), [['a']])
  assert.equal(await surfaced, mistake)
})
