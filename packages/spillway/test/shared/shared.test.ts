import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type TestContext, test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { type Broker, type BrokerOptions, createBroker } from '../../src/core/broker.ts'
import type { Batch } from '../../src/core/event.ts'
import {
  createSharedBuffer,
  openSharedBuffer,
  recoverSharedBuffer,
  type SharedBufferOptions,
  type SharedHandle,
  type SharedSubscribeOptions,
  type SharedSubscription,
} from '../../src/shared/index.ts'
import { event, publish } from '../support/brokers.ts'
import { deferred, outcomeOf, turn, watch, withCode } from '../support/waiting.ts'

interface Setup extends SharedBufferOptions {
  broker?: BrokerOptions
  from?: 'earliest'
}

/** A broker that feeds a small buffer: 65,536 bytes in 16 pages. */
async function setup(t: TestContext, { broker: options, from, ...bufferOptions }: Setup = {}) {
  const broker = createBroker({ capacity: 10_000, ...options })
  const buffer = createSharedBuffer({ bytes: 2 ** 16, ...bufferOptions })
  const stop = buffer.feed(broker, from ? { from } : {})
  const { subscribe } = openSharedBuffer(buffer.handle)
  t.after(() => {
    buffer.close()
    return broker.close()
  })
  await turn()
  return { broker, buffer, stop, subscribe }
}

/** As in Firefox before 145: readers wait for the bell. */
function withoutWaitAsync(t: TestContext): void {
  const { waitAsync } = Atomics as unknown as { waitAsync: unknown }
  t.after(() => Object.assign(Atomics, { waitAsync }))
  delete (Atomics as { waitAsync?: unknown }).waitAsync
}

const keysOf = ({ gap, events }: Batch): unknown => gap ?? events.map(({ key }) => key)

/** What a subscription has now: the keys of each batch, or the gap. */
function taken(subscription: SharedSubscription): unknown[] {
  const got: unknown[] = []
  for (let batch = subscription.take(); batch; batch = subscription.take()) got.push(keysOf(batch))
  return got
}

/** A batch that takes 8,000 bytes, of which 8 fit. */
const large = (key: string) => ({ ...event(key), payload: 'x'.repeat(7900) })

async function publishLarge(broker: Broker, from: number, to: number): Promise<void> {
  for (let n = from; n <= to; n++) await broker.publish(large(`k${n}`))
}

test('a reader gets the batches of the broker, whole, with their indexes and cursors', async (t) => {
  const { broker, subscribe } = await setup(t)
  const [there, here] = [subscribe(), broker.subscribe()]
  const name = { topic: 'Straße', type: 'T', key: 'K', namespace: 'ns', filterKeys: ['f'] }
  await broker.publish([{ ...name, payload: { text: '€ 𝄞 "\n' } }, event('b')], { index: 7 })
  assert.deepEqual(await there.next(), await here.next())
  assert.equal(there.cursor, broker.status.cursor)
  assert.equal(there.lag, 0)
})

test('a waiting reader is woken by a publish, and by each one after it', async (t) => {
  const { broker, subscribe } = await setup(t)
  const subscription = subscribe()
  for (const key of ['a', 'b', 'c']) {
    const next = subscription.next()
    assert.equal((await outcomeOf(next)).state, 'pending')
    await publish(broker, key)
    assert.deepEqual(keysOf(await next), [key])
  }
})

test('a reader starts with what is new, with all that is kept, after an index, or after a cursor', async (t) => {
  const { broker, subscribe } = await setup(t)
  await publish(broker, 'a', 'b', 'c')
  const { cursor } = broker.status
  await publish(broker, 'd')
  assert.deepEqual(taken(subscribe()), [])
  assert.deepEqual(taken(subscribe({ from: 'earliest' })), [['a'], ['b'], ['c'], ['d']])
  assert.deepEqual(taken(subscribe({ from: 2 })), [['c'], ['d']])
  assert.deepEqual(taken(subscribe({ from: cursor })), [['d']])
  assert.equal(subscribe({ from: cursor }).lag, 1)
})

test('a reader that resumes with its cursor misses nothing and gets nothing twice', async (t) => {
  const { broker, subscribe } = await setup(t)
  await publish(broker, 'a', 'b', 'c')
  const first = subscribe({ from: 'earliest' })
  first.take()
  first.close()
  assert.deepEqual(taken(subscribe({ from: first.cursor })), [['b'], ['c']])
})

test('a reader whose cursor is no longer kept, is of another history, or lies ahead, is told so first', async (t) => {
  const { broker, subscribe } = await setup(t)
  await publishLarge(broker, 1, 20)
  const oldest = subscribe({ from: 'earliest' }).take() as Batch
  const resumed = subscribe({ from: 3, onLag: 'skip' })
  const before = resumed.cursor
  assert.deepEqual(resumed.take()?.gap, { after: 3, before: oldest.index, reason: 'retention' })
  assert.ok(before.endsWith(':3'))
  assert.equal(resumed.take()?.index, oldest.index)
  const strange = subscribe({ from: 'other:5', onLag: 'skip' })
  assert.equal(strange.cursor, 'other:5')
  assert.deepEqual(strange.take()?.gap, { after: 5, before: oldest.index, reason: 'epoch' })
  const ahead = subscribe({ from: 99, onLag: 'skip' })
  assert.deepEqual(ahead.take()?.gap, { after: 99, before: 21, reason: 'truncated' })
})

test('a buffer that starts late in a history tells older readers what it never had', async (t) => {
  const broker = createBroker({ capacity: 10 })
  await publish(broker, 'a', 'b', 'c')
  const buffer = createSharedBuffer({ bytes: 2 ** 16 })
  buffer.feed(broker)
  t.after(() => broker.close())
  const { subscribe } = openSharedBuffer(buffer.handle)
  const [older, level] = [subscribe({ from: 1, onLag: 'skip' }), subscribe({ from: 3 })]
  await publish(broker, 'd')
  await turn()
  assert.deepEqual(taken(older), [{ after: 1, before: 4, reason: 'retention' }, ['d']])
  assert.deepEqual(taken(level), [['d']])
})

test('a feed may begin with the history of the broker', async (t) => {
  const broker = createBroker({ capacity: 10 })
  await publish(broker, 'a', 'b')
  const buffer = createSharedBuffer({ bytes: 2 ** 16 })
  buffer.feed(broker, { from: 'earliest' })
  t.after(() => broker.close())
  const subscription = openSharedBuffer(buffer.handle).subscribe({ from: 'earliest' })
  assert.deepEqual(keysOf(await subscription.next()), ['a'])
  assert.deepEqual(keysOf(await subscription.next()), ['b'])
})

test('a reader that was lapped is told exactly which indexes it lost, and goes on with the oldest kept', async (t) => {
  const { broker, subscribe } = await setup(t)
  const slow = subscribe({ onLag: 'skip' })
  await publishLarge(broker, 1, 2)
  assert.deepEqual(taken(slow), [['k1'], ['k2']])
  await publishLarge(broker, 3, 30)
  const { gap, cursor } = slow.take() as Batch
  const first = slow.take() as Batch
  assert.deepEqual(gap, { after: 2, before: first.index, reason: 'lag' })
  assert.ok(cursor.endsWith(`:${first.index - 1}`))
  assert.equal(slow.lost, first.index - 3)
  assert.equal(taken(slow).length, 30 - first.index)
})

test('a lapped reader that must not lose anything ends with the gap, and its cursor stays before it', async (t) => {
  const { broker, subscribe } = await setup(t)
  const slow = subscribe({ from: 'latest' })
  await publishLarge(broker, 1, 30)
  assert.throws(() => slow.take(), withCode('LAGGED', /after index 0/))
  assert.ok(slow.closed)
  assert.ok(slow.cursor.endsWith(':0'))
  await assert.rejects(slow.next(), withCode('LAGGED'))
})

test('a bound on items keeps the newest so many batches', async (t) => {
  const { broker, subscribe } = await setup(t, { items: 2 })
  const slow = subscribe({ onLag: 'skip' })
  await publish(broker, 'a', 'b', 'c', 'd', 'e')
  await turn()
  assert.deepEqual(taken(subscribe({ from: 'earliest' })), [['d'], ['e']])
  assert.deepEqual(taken(slow), [{ after: 0, before: 4, reason: 'lag' }, ['d'], ['e']])
  assert.equal(slow.lost, 3)
})

test('a batch that no record can hold is told as a gap', async (t) => {
  const { broker, subscribe } = await setup(t)
  const subscription = subscribe({ onLag: 'skip' })
  await publish(broker, 'a')
  await broker.publish({ ...event('b'), payload: 'x'.repeat(9000) })
  await publish(broker, 'c')
  await turn()
  assert.deepEqual(taken(subscription), [['a'], { after: 1, before: 3, reason: 'lag' }, ['c']])
})

test('the loss of a batch that no record could hold is told also to a reader that comes too late for that record', async (t) => {
  const { broker, subscribe } = await setup(t, { items: 1 })
  const slow = subscribe({ onLag: 'skip' })
  await publish(broker, 'a')
  await turn()
  assert.deepEqual(taken(slow), [['a']])
  await broker.publish({ ...event('b'), payload: 'x'.repeat(9000) })
  await publish(broker, 'c', 'd')
  await turn()
  assert.deepEqual(taken(slow), [{ after: 1, before: 4, reason: 'lag' }, ['d']])
  assert.equal(slow.lost, 1)
})

test('readers get of a batch what they asked for', async (t) => {
  const { broker, subscribe } = await setup(t)
  const wanted = (options: SharedSubscribeOptions) => taken(subscribe({ from: 'earliest', ...options }))
  await broker.publish(event('a', 'Job'))
  await broker.publish([event('b', 'Job'), event('c', 'Node')])
  await broker.publish({ ...event('d', 'Node'), filterKeys: ['a'] })
  await broker.publish({ ...event('e', 'Job'), namespace: 'secret' })
  assert.deepEqual(wanted({ topics: { Job: ['*'] } }), [['a'], ['b'], ['e']])
  assert.deepEqual(wanted({ topics: { Job: ['a'], Node: ['c'] } }), [['a'], ['c']])
  assert.deepEqual(wanted({ topics: { '*': ['a'] } }), [['a'], ['d']])
  assert.deepEqual(wanted({ topics: { Job: ['*'] }, namespaces: ['public'] }), [['a'], ['b']])
  assert.deepEqual(wanted({ topics: {} }), [])
})

test('the cursor of a reader moves on over batches that it does not want', async (t) => {
  const { broker, subscribe } = await setup(t)
  const subscription = subscribe({ topics: { Node: ['*'] } })
  await publish(broker, 'a', 'b')
  await turn()
  assert.deepEqual(taken(subscription), [])
  assert.equal(subscription.cursor, broker.status.cursor)
})

test('a signal ends a subscription with its reason, and the signal of a wait only that wait', async (t) => {
  const { broker, subscribe } = await setup(t)
  const [whole, once] = [new AbortController(), new AbortController()]
  const subscription = subscribe({ signal: whole.signal })
  const waiting = subscription.next({ signal: once.signal })
  once.abort(new Error('enough'))
  await assert.rejects(waiting, /enough/)
  await publish(broker, 'a')
  assert.deepEqual(keysOf(await subscription.next()), ['a'])
  const last = subscription.next()
  whole.abort(new Error('over'))
  await assert.rejects(last, /over/)
  assert.throws(() => subscription.take(), /over/)
  assert.throws(() => subscribe({ signal: whole.signal }), /over/)
})

test('the end of the broker is the last word of its readers, behind all that was published', async (t) => {
  const { broker, subscribe } = await setup(t)
  const subscription = subscribe()
  await publish(broker, 'a')
  await broker.close()
  assert.deepEqual(keysOf(await subscription.next()), ['a'])
  await assert.rejects(subscription.next(), withCode('SHUTDOWN'))
  await assert.rejects(subscription.next(), withCode('SHUTDOWN'))
  await assert.rejects(subscribe().next(), withCode('SHUTDOWN'))
  await assert.rejects(subscribe({ from: 1 }).next(), withCode('SHUTDOWN'))
})

test('closing the buffer ends loops without an error, once they have read all', async (t) => {
  const { broker, buffer, subscribe } = await setup(t)
  const got: unknown[] = []
  const reading = (async () => {
    for await (const batch of subscribe()) got.push(keysOf(batch))
  })()
  await publish(broker, 'a', 'b')
  buffer.close()
  buffer.close()
  await reading
  assert.deepEqual(got, [['a'], ['b']])
  assert.throws(() => buffer.feed(broker), withCode('CLOSED'))
})

test('a buffer that is closed before it was fed ends its readers', async () => {
  const buffer = createSharedBuffer({ bytes: 2 ** 16 })
  const early = openSharedBuffer(buffer.handle).subscribe({ from: 'x:5' })
  const waiting = early.next()
  buffer.close()
  await assert.rejects(waiting, withCode('CLOSED'))
  assert.equal(early.cursor, '')
})

test('a subscription that was made before the buffer is fed begins with the feed', async (t) => {
  const buffer = createSharedBuffer({ bytes: 2 ** 16 })
  const subscription = openSharedBuffer(buffer.handle).subscribe()
  assert.equal(subscription.cursor, '')
  assert.equal(subscription.take(), undefined)
  const ready = watch(subscription.ready)
  const broker = createBroker()
  t.after(() => broker.close())
  buffer.feed(broker)
  await subscription.ready
  assert.equal(ready.outcome.state, 'done')
  assert.equal(subscription.cursor, broker.status.cursor)
})

test('a feed that was stopped goes on where it ended', async (t) => {
  const { broker, buffer, stop, subscribe } = await setup(t)
  const subscription = subscribe()
  await publish(broker, 'a')
  stop()
  await publish(broker, 'b')
  assert.deepEqual(taken(subscription), [['a']])
  buffer.feed(broker)
  await turn()
  assert.deepEqual(taken(subscription), [['b']])
  assert.throws(() => buffer.feed(broker), withCode('INVALID', /fed already/))
})

test('a buffer holds one history', async (t) => {
  const { buffer, stop } = await setup(t)
  stop()
  const other = createBroker()
  t.after(() => other.close())
  assert.throws(() => buffer.feed(other), withCode('INVALID', /holds history/))
})

test('nothing is seen before a manual flush, unless 64 batches wait for it', async (t) => {
  const { broker, buffer, subscribe } = await setup(t, { bytes: 2 ** 22, flush: 'manual' })
  const subscription = subscribe()
  await publish(broker, 'a')
  assert.deepEqual(taken(subscription), [])
  buffer.flush()
  assert.deepEqual(taken(subscription), [['a']])
  for (let n = 0; n < 64; n++) await publish(broker, 'b')
  assert.equal(taken(subscription).length, 64)
})

test('a blocking reader gives up after its time-out, and takes what is there without waiting', async (t) => {
  const { broker, subscribe } = await setup(t)
  const subscription = subscribe()
  assert.equal(subscription.nextSync({ timeout: 1 }), undefined)
  await publish(broker, 'a')
  assert.deepEqual(keysOf(subscription.nextSync() as Batch), ['a'])
  assert.throws(() => subscription.nextSync({ timeout: -1 }), withCode('INVALID', /timeout/))
  subscription.close()
  assert.throws(() => subscription.nextSync(), withCode('CLOSED'))
})

test('a runtime that can be woken in no way says so, and can still look', async (t) => {
  const { BroadcastChannel } = globalThis
  t.after(() => Object.assign(globalThis, { BroadcastChannel }))
  withoutWaitAsync(t)
  delete (globalThis as { BroadcastChannel?: unknown }).BroadcastChannel
  const { broker, subscribe } = await setup(t)
  const subscription = subscribe()
  await assert.rejects(subscription.next(), withCode('CONFIG', /waitAsync/))
  await assert.rejects(subscription.next(), withCode('CONFIG', /waitAsync/))
  await publish(broker, 'a')
  assert.deepEqual(taken(subscription), [['a']])
})

test('what is published before the bell of a reader can be heard wakes it all the same', async (t) => {
  const { BroadcastChannel: Channel } = globalThis
  const heard = deferred()
  /** As in Chromium: the browser hears of a channel later, and then of what was posted on it since. */
  class LateChannel {
    onmessage: (() => void) | null = null
    readonly #channel: Promise<BroadcastChannel>

    constructor(name: string) {
      this.#channel = heard.promise.then(() => {
        const channel = new Channel(name)
        channel.unref()
        channel.onmessage = () => this.onmessage?.()
        return channel
      })
    }

    postMessage(message: unknown): void {
      void this.#channel.then((channel) => channel.postMessage(message))
    }

    close(): void {
      void this.#channel.then((channel) => channel.close())
    }
  }
  withoutWaitAsync(t)
  const { broker, subscribe } = await setup(t)
  Object.assign(globalThis, { BroadcastChannel: LateChannel })
  const subscription = subscribe()
  const next = subscription.next()
  Object.assign(globalThis, { BroadcastChannel: Channel })
  t.after(() => subscription.close())

  await publish(broker, 'a')
  assert.equal((await outcomeOf(next)).state, 'pending')
  heard.resolve()
  assert.deepEqual(keysOf(await next), ['a'])
})

test('a reader closes its bell once the buffer has ended', async (t) => {
  const { BroadcastChannel: Channel } = globalThis
  let open = 0
  class CountedChannel extends Channel {
    constructor(name: string) {
      super(name)
      open++
    }

    override close(): void {
      open--
      super.close()
    }
  }
  t.after(() => Object.assign(globalThis, { BroadcastChannel: Channel }))
  withoutWaitAsync(t)
  Object.assign(globalThis, { BroadcastChannel: CountedChannel })
  const { broker, buffer, subscribe } = await setup(t)
  const readers = [subscribe(), subscribe()]
  const nexts = readers.map((reader) => reader.next())
  await publish(broker, 'a')
  await Promise.all(nexts)
  const ends = readers.map((reader) => assert.rejects(reader.next(), withCode('CLOSED')))
  buffer.close()
  await Promise.all(ends)
  await turn()
  assert.equal(open, 0)
})

test('a reader that finds the end before the bell is heard leaves nobody of its thread asleep', async (t) => {
  withoutWaitAsync(t)
  const { buffer, subscribe } = await setup(t)
  const [sleeper, finder] = [subscribe(), subscribe()]
  t.after(() => sleeper.close())
  const next = sleeper.next()
  assert.equal((await outcomeOf(next)).state, 'pending')

  buffer.close()
  assert.throws(() => finder.take(), withCode('CLOSED'))
  await turn()
  assert.equal((await outcomeOf(next)).state, 'failed')
})

test('all subscriptions of a thread share one wait, one copy, and what they parse', async (t) => {
  const { waitAsync } = Atomics as unknown as { waitAsync: (...args: unknown[]) => unknown }
  let waits = 0
  Object.assign(Atomics, {
    waitAsync: (...args: unknown[]) => {
      waits++
      return waitAsync(...args)
    },
  })
  t.after(() => Object.assign(Atomics, { waitAsync }))
  const { broker, buffer, subscribe } = await setup(t)
  const subscriptions = [subscribe(), subscribe(), openSharedBuffer(buffer.handle).subscribe()]
  const nexts = subscriptions.map((subscription) => subscription.next())
  await turn()
  assert.equal(waits, 1)
  await publish(broker, 'a')
  const [first, ...others] = await Promise.all(nexts)
  for (const other of others) assert.equal(other, first)
})

test('a reader of much that it does not want lets others have their turn', async (t) => {
  const { broker, subscribe } = await setup(t, { bytes: 2 ** 22 })
  const narrow = subscribe({ topics: { Node: ['*'] } })
  for (let n = 0; n < 5000; n++) await broker.publish(event('a'))
  await broker.publish(event('b', 'Node'))
  await turn()
  const next = watch(narrow.next())
  await Promise.resolve()
  assert.equal(next.outcome.state, 'pending')
  await turn()
  await turn()
  assert.equal(next.outcome.state, 'done')
})

test('a fast writer does not keep timers from their turn', async (t) => {
  const { broker, subscribe } = await setup(t, { bytes: 2 ** 22 })
  const subscription = subscribe()
  for (let n = 0; n < 5000; n++) await broker.publish(event('a'))
  let isRun = false
  setImmediate(() => {
    isRun = true
  })
  let got = 0
  while (!isRun) {
    await subscription.next()
    got++
  }
  assert.ok(got < 5000, `${got} batches in one turn`)
})

test('bad options and handles are refused by name', () => {
  assert.throws(() => createSharedBuffer({ bytes: 1000 }), withCode('CONFIG', /bytes/))
  assert.throws(() => createSharedBuffer({ bytes: 2 ** 31 }), withCode('CONFIG', /bytes/))
  assert.throws(() => createSharedBuffer({ items: -1 }), withCode('CONFIG', /items/))
  assert.throws(() => createSharedBuffer({ flush: 'never' as never }), withCode('CONFIG', /flush/))
  assert.throws(() => openSharedBuffer(undefined as never), withCode('CONFIG', /handle\.memory/))
  assert.throws(() => openSharedBuffer({ memory: new ArrayBuffer(8) as never }), withCode('CONFIG', /handle\.memory/))
  const strange = { memory: new SharedArrayBuffer(4096) }
  assert.throws(() => openSharedBuffer(strange), withCode('CONFIG', /not the memory/))
  const { handle } = createSharedBuffer({ bytes: 2 ** 16 })
  assert.throws(() => openSharedBuffer(handle, { keepAlive: 1 as never }), withCode('CONFIG', /keepAlive/))
  const words = new Int32Array(handle.memory)
  words[1] = 2
  assert.throws(() => openSharedBuffer({ memory: handle.memory }), withCode('CONFIG', /version 2/))
  const { subscribe } = openSharedBuffer(createSharedBuffer({ bytes: 2 ** 16 }).handle)
  assert.throws(() => subscribe({ onLag: 'wait' as never }), withCode('INVALID', /onLag/))
  assert.throws(() => subscribe({ from: 'soon' }), withCode('INVALID', /cursor/))
  assert.throws(() => subscribe({ from: -1 }), withCode('INVALID', /from/))
  assert.throws(() => subscribe({ topics: { Job: 'a' as never } }), withCode('INVALID', /topics/))
  const buffer = createSharedBuffer({ bytes: 2 ** 16 })
  assert.throws(() => buffer.feed({} as never), withCode('CONFIG', /broker/))
})

test('memory that somebody wrote into ends its reader, and makes it neither loop nor wait', async (t) => {
  const { broker, buffer, subscribe } = await setup(t)
  const subscription = subscribe({ from: 'earliest' })
  await publish(broker, 'a')
  const { memory } = buffer.handle
  new Uint8Array(memory, memory.byteLength - 2 ** 16).fill(0xff)
  assert.throws(() => subscription.take(), withCode('INTERNAL', /damaged/))
  await assert.rejects(subscription.next(), withCode('INTERNAL'))
})

test('a buffer whose writer has ended is taken over: readers get what was flushed, and then what the next one writes', async (t) => {
  const { broker, buffer, stop, subscribe } = await setup(t)
  const [waiting, resuming] = [subscribe(), subscribe({ from: 'latest' })]
  await publish(broker, 'a')
  assert.deepEqual(taken(waiting), [['a']])
  const next = waiting.next()
  stop()
  const other = recoverSharedBuffer(buffer.handle)
  other.feed(broker)
  await publish(broker, 'b')
  assert.deepEqual(keysOf(await next), ['b'])
  assert.deepEqual(taken(resuming), [['a'], ['b']])
  other.close()
  await assert.rejects(waiting.next(), withCode('CLOSED'))
  assert.throws(() => recoverSharedBuffer(buffer.handle), withCode('CLOSED'))
})

const readers = ['loop', 'blocking', 'doorbell'] as const

for (const how of readers) {
  test(`a ${how} reader in another thread is woken for every batch, and by the end`, async (t) => {
    const { broker, buffer } = await setup(t)
    const handle: SharedHandle = buffer.handle
    const worker = new Worker(new URL('./face-worker.js', import.meta.url), { workerData: { handle, how } })
    t.after(() => worker.terminate())
    assert.deepEqual(await once(worker, 'message'), ['ready'])
    for (const key of ['a', 'b', 'c']) {
      await publish(broker, key)
      assert.deepEqual(await once(worker, 'message'), [[key]])
    }
    const exit = once(worker, 'exit')
    buffer.close()
    assert.deepEqual(await once(worker, 'message'), ['CLOSED'])
    assert.deepEqual(await exit, [0])
  })
}
