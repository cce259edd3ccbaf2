import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type TestContext, test } from 'node:test'
import { MessageChannel, Worker } from 'node:worker_threads'
import { type Broker, type BrokerOptions, createBroker } from '../../src/core/broker.ts'
import type { Appended, Log, LogNews, LogPage, LogStart, RightsChange } from '../../src/core/log.ts'
import { type MemoryLogOptions, memoryLog } from '../../src/core/memory-log.ts'
import { everything } from '../../src/core/rights.ts'
import type { Subscription } from '../../src/core/subscription.ts'
import { openSharedLog, type SharedLogHandle, shareLog } from '../../src/shared/index.ts'
import { event, publish, shapes } from '../support/brokers.ts'
import type { LogWanted } from '../support/log-owner.ts'
import { turn } from '../support/waiting.ts'

/** The broker of a log and one that sees it as another thread does. */
function pair(t: TestContext, options: { bytes?: number; log?: MemoryLogOptions; view?: BrokerOptions } = {}) {
  const log = shareLog(memoryLog({ capacity: 10_000, ...options.log }), { bytes: options.bytes ?? 65_536 })
  const { port1, port2 } = new MessageChannel()
  const owner = createBroker({ log })
  const view = createBroker({ log: openSharedLog(log.connect(port1), port2), ...options.view })
  t.after(() => Promise.all([owner.close(), view.close()]))
  return { owner, view, log }
}

/** A broker whose log is owned by a thread that can be killed. */
async function apart(t: TestContext): Promise<{ broker: Broker; worker: Worker }> {
  const worker = new Worker(new URL('../support/log-owner.js', import.meta.url))
  const [channel, answer] = [new MessageChannel(), new MessageChannel()]
  const done = new Int32Array(new SharedArrayBuffer(4))
  const wanted: LogWanted = { limits: {}, port: channel.port1, answer: answer.port1, done }
  worker.postMessage(wanted, [channel.port1, answer.port1])
  const [handle] = (await once(answer.port2, 'message')) as [SharedLogHandle]
  answer.port2.close()
  const broker = createBroker({ log: openSharedLog(handle, channel.port2) })
  t.after(async () => {
    await broker.close()
    await worker.terminate()
  })
  return { broker, worker }
}

/** `count` batches at once, of which the ring holds only the last. */
function burst(broker: Broker, count: number): Promise<readonly number[]> {
  const batches = Array.from({ length: count }, (_, n) => ({
    events: [{ ...event(String(n)), payload: 'x'.repeat(200) }],
  }))
  return broker.publishAll(batches)
}

test('what was overwritten before another thread came to it is read from the log, and nobody misses anything', async (t) => {
  const { owner, view } = pair(t, { view: { capacity: 50 } })
  const reader = view.subscribe()
  await publish(owner, 'first')
  await burst(owner, 2000)
  await publish(owner, 'last')
  const numbers = Array.from({ length: 2000 }, (_, n) => [String(n)])
  assert.deepEqual(await shapes(reader), [['first'], ...numbers, ['last']])
})

test('what the log has dropped, too, is told as one gap', async (t) => {
  const { owner, view, log } = pair(t, { log: { capacity: 10 } })
  const reader = view.subscribe({ onLag: 'skip' })
  await publish(owner, 'first')
  assert.deepEqual(await shapes(reader), [['first']])
  await burst(owner, 2000)
  const [gap, ...rest] = await shapes(reader)
  assert.deepEqual(gap, { after: 1, before: log.floor + 1, reason: 'lag' })
  assert.equal(rest.length, log.last - log.floor)
})

test('a batch that is too large for the ring is read from the log', async (t) => {
  const { owner, view } = pair(t)
  const reader = view.subscribe()
  await publish(owner, 'a')
  await owner.publish({ ...event('large'), payload: 'x'.repeat(20_000) })
  await publish(owner, 'b')
  assert.deepEqual(await shapes(reader), [['a'], ['large'], ['b']])
})

test('a change of rights counts for what is published after it, in every thread that it was not made in', async (t) => {
  const asked: string[] = []
  let isAllowed = true
  const authorize = ({ token }: { token: string }) => {
    asked.push(token)
    if (!isAllowed) throw new Error('no more')
    return everything
  }
  const { owner, view } = pair(t, { view: { authorize } })
  const reader = view.subscribe({ token: 'me' })
  await reader.ready
  await publish(owner, 'before')
  assert.deepEqual([(await reader.next()).events[0]?.key, asked], ['before', ['me']])
  isAllowed = false
  owner.recheck('me')
  await publish(owner, 'after')
  await assert.rejects(reader.next(), { code: 'REVOKED' })
  assert.deepEqual(asked, ['me', 'me'])
})

test('a thread that says whose rights are gone is not told so again', async (t) => {
  const { owner, view } = pair(t, { view: { authorize: () => ({ ...everything, subject: 'me' }) } })
  const [first, other] = [view.subscribe(), owner.subscribe({ token: 'me' })]
  await first.ready
  view.revoke('me')
  await assert.rejects(first.next(), { code: 'REVOKED' })
  const second = view.subscribe()
  await second.ready
  await assert.rejects(other.next(), { code: 'REVOKED' })
  await publish(owner, 'a')
  assert.deepEqual(await shapes(second), [['a']])
})

test('whoever lost a part of the ring has all rights asked for again, since a change of them may have been in it', async (t) => {
  let asked = 0
  const authorize = () => {
    asked++
    return everything
  }
  const { owner, view } = pair(t, { view: { authorize } })
  const reader = view.subscribe()
  await reader.ready
  await burst(owner, 2000)
  assert.equal((await shapes(reader)).length, 2000)
  assert.equal(asked, 2)
})

test('a revocation counts also where the ring went round with nothing but revocations', async (t) => {
  const { owner, view } = pair(t, { view: { authorize: ({ token }) => ({ ...everything, subject: token }) } })
  const [gone, stays] = ['s0', 'me'].map((token) => view.subscribe({ token }))
  await Promise.all([gone?.ready, stays?.ready])
  for (let n = 0; n < 1500; n++) owner.revoke(`s${n}`)
  await assert.rejects((gone as Subscription).next(), { code: 'REVOKED' })
  await publish(owner, 'a')
  assert.deepEqual(await shapes(stays as Subscription), [['a']])
})

test('subjects that are longer than a record are revoked as others are, in every thread', async (t) => {
  const authorize = ({ token }: { token: string }) => ({ ...everything, subject: token })
  const { owner, view } = pair(t, { view: { authorize } })
  const [first, second] = ['a', 'b'].map((letter) => letter.repeat(50_000)) as [string, string]
  const here = [first, second].map((token) => owner.subscribe({ token }))
  const there = [first, second].map((token) => view.subscribe({ token }))
  await Promise.all(there.map(({ ready }) => ready))
  owner.revoke(first)
  view.revoke(second)
  for (const reader of [...here, ...there]) await assert.rejects(reader.next(), { code: 'REVOKED' })
})

test('names begin with whatever they do, also in another thread', async (t) => {
  const { owner, view } = pair(t)
  const topic = '\ufeffOrder'
  const reader = view.subscribe({ topics: { [topic]: ['*'] } })
  await owner.publish({ topic, type: 't', key: 'a' })
  assert.deepEqual(await shapes(reader), [['a']])
  assert.equal(view.status.bytes, owner.status.bytes)
})

test('what has been published is known in another thread before it is told', async (t) => {
  const { owner, view } = pair(t)
  await publish(owner, 'a', 'b')
  const reader = view.subscribe()
  const exact = view.subscribe({ from: { at: 2, exact: true } })
  assert.equal(view.status.newestIndex, 2)
  await publish(owner, 'c')
  assert.deepEqual([await shapes(reader), await shapes(exact)], [[['c']], [['b'], ['c']]])
})

test('when the owner closes a log its readers in other threads end', async (t) => {
  const { owner, view } = pair(t)
  const reader = view.subscribe()
  await publish(owner, 'a')
  assert.equal((await reader.next()).index, 1)
  await owner.close()
  await assert.rejects(reader.next(), { code: 'SHUTDOWN' })
  await assert.rejects(view.publish(event('b')), { code: 'SHUTDOWN' })
})

test("when the owner's thread dies its readers in other threads end, and what is being published is refused", async (t) => {
  const { broker, worker } = await apart(t)
  await publish(broker, 'a')
  const reader = broker.subscribe({ from: 'earliest' })
  assert.equal((await reader.next()).index, 1)
  await worker.terminate()
  await assert.rejects(reader.next(), { code: 'SHUTDOWN' })
  await assert.rejects(broker.publish(event('b')), { code: 'SHUTDOWN' })
})

test("whoever waits for a publish when the owner's thread dies is told that it may have been stored", async (t) => {
  const { broker, worker } = await apart(t)
  const waiting = broker.publish(event('a'))
  const refused = assert.rejects(waiting, { code: 'LOG_FAILED', message: /may have been stored/ })
  await Promise.all([refused, worker.terminate()])
})

/** A log that an engine keeps, of which the test says what it tells beside batches, and what it tells of at all. */
class DistantLog implements Log {
  readonly #inner = memoryLog({ capacity: 10_000 })
  readonly #news = new Set<LogNews>()
  readonly announced: RightsChange[] = []
  isSilent = false

  get epoch(): string {
    return this.#inner.epoch
  }

  get floor(): number {
    return this.#inner.floor
  }

  get last(): number {
    return this.#inner.last
  }

  append(...args: Parameters<Log['append']>): Promise<Appended> {
    return this.#inner.append(...args)
  }

  read(after: number, limit: number): Promise<LogPage> {
    return this.#inner.read(after, limit)
  }

  locate(start: LogStart): Promise<number> {
    return this.#inner.locate(start)
  }

  follow(listener: Parameters<Log['follow']>[0], news?: LogNews): () => void {
    if (news) this.#news.add(news)
    return this.#inner.follow((batch) => this.isSilent || listener(batch))
  }

  announce(change: RightsChange): void {
    this.announced.push(change)
    this.tell((news) => news.rights(change))
  }

  tell(what: (news: LogNews) => void): void {
    for (const news of this.#news) what(news)
  }

  close(): Promise<void> {
    return this.#inner.close()
  }
}

/** A log at a distance, a broker of the thread that has it and one of another thread. */
function distant(t: TestContext, options: BrokerOptions = {}) {
  const distance = new DistantLog()
  const log = shareLog(distance, { bytes: 65_536 })
  const { port1, port2 } = new MessageChannel()
  const owner = createBroker({ log, ...options })
  const view = createBroker({ log: openSharedLog(log.connect(port1), port2), ...options })
  t.after(() => Promise.all([owner.close(), view.close()]))
  return { distance, owner, view }
}

test('batches that a log at a distance did not tell of are read by all threads, and nobody misses them', async (t) => {
  const { distance, owner, view } = distant(t)
  const readers = [owner.subscribe(), view.subscribe()]
  await publish(owner, 'a')
  distance.isSilent = true
  await publish(owner, 'b', 'c')
  distance.isSilent = false
  distance.tell((news) => news.missed(3))
  await publish(owner, 'd')
  for (const reader of readers) assert.deepEqual(await shapes(reader), [['a'], ['b'], ['c'], ['d']])
})

test('changes of rights that come by the log reach all threads, before what is published after them', async (t) => {
  const withdrawn = new Set<string>()
  const authorize = ({ token }: { token: string }) => {
    if (withdrawn.has(token)) throw new Error('no more')
    return { ...everything, subject: token }
  }
  const { distance, owner, view } = distant(t, { authorize })
  const readers = ['gone', 'asked', 'stays'].flatMap((token) => [owner.subscribe({ token }), view.subscribe({ token })])
  await Promise.all(readers.map(({ ready }) => ready))
  await publish(owner, 'before')
  for (const reader of readers) assert.equal((await reader.next()).events[0]?.key, 'before')
  withdrawn.add('asked')
  distance.tell((news) => news.rights({ subject: 'gone', isRevoked: true }))
  distance.tell((news) => news.rights({ subject: 'asked', isRevoked: false }))
  await publish(owner, 'after')
  for (const [n, reader] of readers.entries()) {
    if (n < 4) await assert.rejects(reader.next(), { code: 'REVOKED' })
    else assert.equal((await reader.next()).events[0]?.key, 'after')
  }
})

test('what a thread announces is announced by the log, once, and reaches all threads', async (t) => {
  const { distance, owner, view } = distant(t, { authorize: ({ token }) => ({ ...everything, subject: token }) })
  const readers = ['a', 'b'].flatMap((token) => [owner.subscribe({ token }), view.subscribe({ token })])
  await Promise.all(readers.map(({ ready }) => ready))
  owner.revoke('a')
  view.revoke('b')
  for (const reader of readers) await assert.rejects(reader.next(), { code: 'REVOKED' })
  assert.deepEqual(distance.announced, [
    { subject: 'a', isRevoked: true },
    { subject: 'b', isRevoked: true },
  ])
})

test('a history that others have ended ends the readers of all threads, and what is published then is refused', async (t) => {
  const { distance, owner, view } = distant(t)
  const readers = [owner.subscribe(), view.subscribe()]
  await publish(view, 'a')
  for (const reader of readers) assert.equal((await reader.next()).events[0]?.key, 'a')
  distance.tell((news) => news.ended())
  for (const reader of readers) await assert.rejects(reader.next(), { code: 'SHUTDOWN' })
  for (const broker of [owner, view]) await assert.rejects(broker.publish(event('b')), { code: 'SHUTDOWN' })
})

test('what is not a handle or a port is refused by name', async () => {
  const log = shareLog(memoryLog())
  const handle = log.connect(new MessageChannel().port1)
  for (const wrong of [{}, { ...handle, number: undefined }, { ...handle, changes: '0' }] as never[]) {
    assert.throws(() => openSharedLog(wrong, new MessageChannel().port1), { code: 'CONFIG', message: /^handle / })
  }
  for (const wrong of [undefined, {}, { postMessage() {} }] as never[]) {
    assert.throws(() => openSharedLog(handle, wrong), { code: 'CONFIG', message: /^port / })
    assert.throws(() => log.connect(wrong), { code: 'CONFIG', message: /^port / })
  }
  await log.close()
  await turn()
  assert.throws(() => shareLog({} as never), { code: 'CONFIG', message: /^log / })
  assert.throws(() => shareLog(memoryLog(), { bytes: 1 }), { code: 'CONFIG', message: /^bytes / })
})
