import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { createBroker } from '../../src/core/broker.ts'
import { parseCursor } from '../../src/core/cursor.ts'
import type { SpillwayError } from '../../src/core/errors.ts'
import { encodeEvents, type PendingBatch, type StoredBatch } from '../../src/core/event.ts'
import type { Log } from '../../src/core/log.ts'
import { type JetStreamLog, type JetStreamLogOptions, jetstreamLog } from '../../src/log/jetstream.ts'
import { until } from '../support/http.ts'
import { logOverLine, natsSite, noNats, rememberDisk } from '../support/nats.ts'
import { withCode } from '../support/waiting.ts'

const skip = noNats
const batch = (key: string, index?: number): PendingBatch => encodeEvents([{ topic: 'T', type: 't', key }], index)

function follow(log: Log): string[] {
  const told: string[] = []
  log.follow(({ index, events }) => told.push(`${index} ${events[0]?.key}`))
  return told
}

const indexesOf = (batches: readonly StoredBatch[]) => batches.map(({ index }) => index)

test('servers share epoch, indexes and order, and each appends beside the others without losing any', {
  skip,
}, async (t) => {
  const site = await natsSite(t)
  const logs = [await site.open(), await site.open(), await site.open()]
  assert.equal(new Set(logs.map(({ epoch }) => epoch)).size, 1)
  const told = logs.map(follow)
  const total = 300
  const mine = logs.map((log, n) =>
    Promise.all(Array.from({ length: total }, async (_, m) => (await log.append([batch(`${n}.${m}`)])).indexes[0])),
  )
  for (const indexes of await Promise.all(mine)) {
    // Calls that were not awaited keep their order, whoever comes between.
    assert.deepEqual(
      indexes,
      [...indexes].sort((a = 0, b = 0) => a - b),
    )
  }
  await until(() => told.every(({ length }) => length === 3 * total), 'all are told')
  assert.deepEqual(told[1], told[0])
  assert.deepEqual(told[2], told[0])
  const indexes = told[0]?.map((line) => Number(line.split(' ')[0])) ?? []
  assert.ok(indexes.every((index, n) => index > (indexes[n - 1] ?? 0)))
})

test('an append of several batches is whole at every server, also where others append between', { skip }, async (t) => {
  const site = await natsSite(t)
  const [a, b] = [await site.open(), await site.open()]
  const told = follow(b)
  const appends = [a, b, a, b].flatMap((log, n) =>
    Array.from({ length: 20 }, (_, m) =>
      log.append([batch(`${n}.${m} 1`), batch(`${n}.${m} 2`), batch(`${n}.${m} 3`)]),
    ),
  )
  for (const { indexes } of await Promise.all(appends)) {
    const [first = 0] = indexes
    assert.deepEqual(indexes, [first, first + 1, first + 2])
  }
  await until(() => told.length === 240, 'all are told')
  for (let n = 0; n < told.length; n += 3) {
    const names = told.slice(n, n + 3).map((line) => line.split(' ').slice(1))
    assert.deepEqual(
      names,
      ['1', '2', '3'].map((part) => [names[0]?.[0], part]),
    )
  }
})

test('of two servers that expect the same newest index exactly one appends, each time', { skip }, async (t) => {
  const site = await natsSite(t)
  const logs = [await site.open(), await site.open()]
  for (let round = 0; round < 50; round++) {
    const expected = Math.max(...logs.map(({ last }) => last))
    const outcomes = await Promise.allSettled(logs.map((log, n) => log.append([batch(`${round}.${n}`)], { expected })))
    const won = outcomes.filter(({ status }) => status === 'fulfilled')
    const [lost] = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? outcome.reason : []))
    assert.equal(won.length, 1)
    assert.deepEqual([lost.code, lost.index], ['INDEX_MISMATCH', expected + 1])
  }
})

test('a key that was used at one server gives its indexes at every other', { skip }, async (t) => {
  const site = await natsSite(t)
  const [a, b] = [await site.open(), await site.open()]
  const several = () => [batch('x'), batch('y', 5)]
  assert.deepEqual(await a.append(several(), { key: 'k' }), { indexes: [1, 5], duplicate: false })
  assert.deepEqual(await b.append(several(), { key: 'k' }), { indexes: [1, 5], duplicate: true })
  const late = await site.open()
  assert.deepEqual(await late.append(several(), { key: 'k' }), { indexes: [1, 5], duplicate: true })
  await assert.rejects(late.append([batch('z')], { key: 'k' }), withCode('KEY_REUSED'))
  // At once, through all of them.
  const outcomes = await Promise.all([a, b, late].map((log) => log.append([batch('w')], { key: 'w' })))
  assert.deepEqual(new Set(outcomes.flatMap(({ indexes }) => indexes)).size, 1)
  assert.equal(outcomes.filter(({ duplicate }) => !duplicate).length, 1)
})

test('an append that broke off in the middle is seen by nobody, and can be repeated under its key', {
  skip,
}, async (t) => {
  const site = await natsSite(t)
  const log = await site.open()
  await log.append([batch('a')])
  const { config } = await (await site.manager()).streams.info('events')
  const subject = config.subjects[0]?.replace('*', 'batch') ?? ''
  const broken = await site.connection()
  const { headers } = await import('@nats-io/transport-node')
  // The first two of three messages, as a server leaves them that is killed.
  for (const position of [1, 2]) {
    const head = headers()
    head.set('Spillway', `1 1700000000000 dead.1.0 ${position} 3 1`)
    await broken.request(subject, 'T\x1ft\x1fghost\x1f\x1fnull', { headers: head, timeout: 5000 })
  }
  const told = follow(log)
  assert.deepEqual((await log.append([batch('b')])).indexes, [4])
  const late = await site.open()
  assert.deepEqual(indexesOf((await late.read(0, 10)).batches), [1, 4])
  assert.deepEqual(indexesOf((await late.read(1, 10)).batches), [4])
  assert.deepEqual(indexesOf((await late.read(2, 10)).batches), [4])
  assert.deepEqual(told, ['4 b'])
  assert.deepEqual(await late.append([batch('c')], { key: 'k' }), { indexes: [5], duplicate: false })
})

test('changes of rights reach every server, in order with the batches, and take no index from a reader', {
  skip,
}, async (t) => {
  const site = await natsSite(t)
  const [a, b] = [await site.open(), await site.open()]
  const told: string[] = []
  b.follow(({ events }) => told.push(String(events[0]?.key)), {
    missed: () => told.push('missed'),
    rights: ({ subject, isRevoked }) => told.push(`${isRevoked ? 'revoked' : 'asked'} ${subject}`),
    ended: () => told.push('ended'),
  })
  const own: unknown[] = []
  a.follow(() => {}, { missed: () => {}, rights: (change) => own.push(change), ended: () => {} })
  await a.append([batch('1')])
  a.announce?.({ subject: 'alice', isRevoked: true })
  assert.deepEqual(own, [{ subject: 'alice', isRevoked: true }])
  await a.append([batch('2')])
  a.announce?.({ subject: undefined, isRevoked: false })
  await a.append([batch('3')])
  await until(() => told.includes('3'), 'the last is told')
  assert.deepEqual(told, ['1', 'revoked alice', '2', 'asked undefined', '3'])
  assert.equal(own.length, 2)
  const { batches } = await b.read(0, 10)
  assert.equal(batches.length, 3)
  assert.equal(await b.locate({ last: 3 }), 0)
  assert.equal((await b.read(await b.locate({ last: 2 }), 10)).batches.length, 2)
})

test('kill -9 of the engine under load: what was acknowledged is there once, in order, and followers miss nothing', {
  skip,
}, async (t) => {
  const site = await natsSite(t)
  const [log, other] = [await site.open(), await site.open()]
  const told = [follow(log), follow(other)]
  const acknowledged: string[] = []
  let isOver = false
  const publishers = Array.from({ length: 10 }, async (_, n) => {
    for (let m = 0; !isOver; m++) {
      const { indexes } = await (n % 2 === 0 ? log : other).append([batch(`${n}.${m}`)])
      acknowledged.push(`${indexes[0]} ${n}.${m}`)
    }
  })
  for (let round = 0; round < 5; round++) {
    const before = acknowledged.length
    await until(() => acknowledged.length > before + 200, 'appends go on')
    await site.server.stop('SIGKILL')
    site.server = await site.server.restart()
  }
  const before = acknowledged.length
  await until(() => acknowledged.length > before + 200, 'appends go on')
  isOver = true
  await Promise.all(publishers)
  const last = Math.max(log.last, other.last)
  await until(() => log.last === last && other.last === last, 'both are told')
  assert.deepEqual(told[1], told[0])
  assert.equal(new Set(told[0]).size, told[0]?.length)
  assert.deepEqual(
    acknowledged.filter((line) => !told[0]?.includes(line)),
    [],
  )
  assert.equal(told[0]?.length, acknowledged.length)
})

test('an engine that stays away: what was sent is not known, what was not sent is not stored, and it goes on by itself', {
  skip,
}, async (t) => {
  const site = await natsSite(t)
  const log = await site.open({ patience: 1500 })
  const told = follow(log)
  await log.append([batch('a')])
  await site.server.stop('SIGKILL')
  const first = log.append([batch('b')])
  await assert.rejects(first, (error: SpillwayError) => {
    assert.deepEqual([error.code, error.retryable], ['LOG_FAILED', true])
    assert.match(error.message, /not known whether the events were stored.*same id/)
    return true
  })
  site.server = await site.server.restart()
  const stored = () => log.append([batch('c')]).catch(() => undefined)
  let appended = await stored()
  while (!appended) appended = await stored()
  assert.ok(told.includes(`${appended.indexes[0]} c`))
})

test('what the engine let go of before a server read it is told, and rights are asked for again', {
  skip,
}, async (t) => {
  const site = await natsSite(t)
  const log = await site.open({ capacity: 10 })
  const { line, slow, news } = await logOverLine(t, site)
  await log.append([batch('a')])
  await until(() => slow.last === 1, 'it is told')
  // While it is cut off more comes than the stream keeps.
  line.cut()
  for (let n = 0; n < 50; n++) await log.append([batch(String(n))])
  line.mend()
  await until(() => slow.last === 51, 'it is told')
  assert.deepEqual(news, ['rights undefined', 'missed 41'])
  const { floor, batches } = await slow.read(1, 100)
  assert.deepEqual([floor, indexesOf(batches)], [41, [42, 43, 44, 45, 46, 47, 48, 49, 50, 51]])
})

test('batches that were deleted in the middle are told as lost, and nothing beside them', { skip }, async (t) => {
  const site = await natsSite(t)
  const log = await site.open()
  for (let n = 1; n <= 10; n++) await log.append([batch(String(n))])
  const { streams } = await site.manager()
  for (const seq of [4, 5, 8]) await streams.deleteMessage('events', seq)
  const pages = []
  for (let after = 0; after < 10; ) {
    const { floor, lost, batches } = await log.read(after, 100)
    pages.push({ floor, lost, indexes: indexesOf(batches) })
    after = batches.at(-1)?.index ?? 10
  }
  assert.deepEqual(pages, [
    { floor: 0, lost: undefined, indexes: [1, 2, 3] },
    { floor: 0, lost: 5, indexes: [6, 7] },
    { floor: 0, lost: 8, indexes: [9, 10] },
  ])
  const broker = createBroker({ log: await site.open() })
  t.after(() => broker.close())
  const reader = broker.subscribe({ from: 'earliest', onLag: 'skip' })
  const gaps: unknown[] = []
  for await (const { index, gap } of reader) {
    if (gap) gaps.push(gap)
    if (index === 10) break
  }
  assert.deepEqual(gaps, [
    { after: 3, before: 6, reason: 'corrupt' },
    { after: 7, before: 9, reason: 'corrupt' },
  ])
})

test('what is too old goes by the engine, and readers are told', { skip }, async (t) => {
  const site = await natsSite(t)
  const log = await site.open({ maxAge: 500 })
  await log.append([batch('a'), batch('b')])
  await until(async () => (await log.read(0, 1)).floor === 2, 'they are gone')
  assert.deepEqual([log.floor, log.last], [2, 2])
  assert.deepEqual((await log.append([batch('c')])).indexes, [3])
  const again = await site.open()
  assert.deepEqual([again.epoch, again.last], [log.epoch, 3])
})

test('a stream that is removed, or made anew, ends the history: brokers close, and cursors of it mean nothing any more', {
  skip,
}, async (t) => {
  const site = await natsSite(t)
  const log = await site.open()
  const broker = createBroker({ log })
  await broker.publish({ topic: 'T', type: 't' })
  const reader = broker.subscribe()
  const waiting = assert.rejects(reader.next(), withCode('SHUTDOWN'))
  const { streams } = await site.manager()
  const { config } = await streams.info('events')
  await streams.delete('events')
  await streams.add(config)
  assert.match((await log.ended).message, /made anew|removed/)
  await waiting
  await assert.rejects(broker.publish({ topic: 'T', type: 't' }), withCode('SHUTDOWN'))
  const next = createBroker({ log: await site.open() })
  t.after(() => next.close())
  assert.notEqual(parseCursor(next.status.cursor).epoch, log.epoch)
  const back = next.subscribe({ from: reader.cursor, onLag: 'skip' })
  await next.publish({ topic: 'T', type: 't' })
  assert.equal((await back.next()).gap?.reason, 'epoch')
})

test('an engine that lost what it had acknowledged begins another history, as a server sees that was there', {
  skip,
}, async (t) => {
  const site = await natsSite(t)
  const log = await site.open()
  await log.append([batch('a')])
  const setBack = await rememberDisk(site)
  for (let n = 0; n < 5; n++) await log.append([batch('b')])
  await site.server.stop('SIGKILL')
  await setBack()
  site.server = await site.server.restart()
  assert.match((await log.ended).message, /ends at 1, but 6 was acknowledged/)
  const next = await site.open()
  assert.notEqual(next.epoch, log.epoch)
  assert.deepEqual(indexesOf((await next.read(0, 10)).batches), [1])
})

test('options that are none are refused by name', { skip }, async (t) => {
  const site = await natsSite(t)
  const connection = await site.connection()
  for (const [wrong, field] of [
    [{ connection: {} }, 'connection'],
    [{ stream: '' }, 'stream'],
    [{ stream: 'a.b' }, 'stream'],
    [{ stream: 'x'.repeat(65) }, 'stream'],
    [{ durability: 'disk' }, 'durability'],
    [{ replicas: 0 }, 'replicas'],
    [{ replicas: 6 }, 'replicas'],
    [{ capacity: 0 }, 'capacity'],
    [{ maxBytes: -1 }, 'maxBytes'],
    [{ maxAge: 99 }, 'maxAge'],
    [{ patience: 0 }, 'patience'],
    [{ patience: 2 ** 31 }, 'patience'],
  ] as const) {
    const options = { connection, stream: 'events', ...wrong } as unknown as JetStreamLogOptions
    await assert.rejects(jetstreamLog(options), (error: SpillwayError) => {
      assert.deepEqual([error.code, error.message.startsWith(`${field} must be `)], ['CONFIG', true])
      return true
    })
  }
})

test('a level that the engine does not give is refused with the setting to change', { skip }, async (t) => {
  const site = await natsSite(t)
  const refused = (options: Partial<JetStreamLogOptions>, text: RegExp) =>
    assert.rejects(site.open(options), (error: SpillwayError) => {
      assert.equal(error.code, 'LOG_UNUSABLE')
      assert.match(error.message, text)
      return true
    })
  await refused({ durability: 'machine' }, /3 replicas need a cluster/)
  await site.open()
  await refused({ durability: 'machine', replicas: 1 }, /has 1 replicas.*set replicas/)
  // Also of a stream that is there: the engine would take the number, and keep one copy.
  await refused({ durability: 'machine' }, /3 replicas need a cluster/)
  const { streams } = await site.manager()
  assert.equal((await streams.info('events')).config.num_replicas, 1)
  await refused({ durability: 'power' }, /set monitor/)
  await refused({ durability: 'power', monitor: 'http://127.0.0.1:1' }, /does not answer/)
  await refused({ durability: 'power', monitor: site.server.monitor }, /sync_interval: always/)
  const through = await natsSite(t, { jetstream: 'sync_interval: always' })
  const log: JetStreamLog = await through.open({ durability: 'power', monitor: through.server.monitor })
  assert.equal(log.durability, 'power')
  // What another server says is not asked for.
  await refused({ durability: 'power', monitor: through.server.monitor }, /Nobody says whether/)
})

test('a log is not opened while its connection is away, and that is what is said', { skip }, async (t) => {
  const site = await natsSite(t)
  const connection = await site.connection()
  await site.server.stop('SIGKILL')
  await until(() => connection.info === undefined, 'the connection is away')
  await assert.rejects(jetstreamLog({ connection, stream: 'events' }), { code: 'LOG_FAILED', message: /is away/ })
})

test('a monitoring endpoint that says nothing is asked once', { skip }, async (t) => {
  const site = await natsSite(t)
  let asked = 0
  const silent = createServer(() => asked++).listen(0, '127.0.0.1')
  t.after(() => silent.close().closeAllConnections())
  await once(silent, 'listening')
  const monitor = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`
  await assert.rejects(site.open({ durability: 'power', monitor }), {
    code: 'LOG_UNUSABLE',
    message: /does not answer/,
  })
  assert.equal(asked, 1)
})

test('a stream that is not ours, and subjects that are in use, are refused and not touched', { skip }, async (t) => {
  const site = await natsSite(t)
  const { streams } = await site.manager()
  const before = await streams.add({ name: 'events', subjects: ['orders.>'] })
  await assert.rejects(site.open(), withCode('LOG_UNUSABLE'))
  assert.deepEqual((await streams.info('events')).config, before.config)
  await streams.add({ name: 'greedy', subjects: ['spillway.>'] })
  await assert.rejects(site.open({ stream: 'other' }), (error: SpillwayError) => {
    assert.equal(error.code, 'LOG_UNUSABLE')
    assert.match(error.message, /spillway\.other\.> are in use/)
    return true
  })
})

test('a batch that is larger than the engine takes is refused before it is sent', { skip }, async (t) => {
  const site = await natsSite(t)
  const log = await site.open()
  const large = encodeEvents([{ topic: 'T', type: 't', payload: 'x'.repeat(2 ** 20) }])
  await assert.rejects(log.append([batch('a'), large]), withCode('TOO_LARGE'))
  assert.deepEqual((await log.append([batch('b')])).indexes, [1])
})

test('an engine without room says so, readers go on, and it takes events again once there is', { skip }, async (t) => {
  const site = await natsSite(t, { jetstream: 'max_file_store: 4M' })
  const log = await site.open({ maxBytes: 3 * 2 ** 20 })
  const { streams } = await site.manager()
  await streams.add({ name: 'filler', subjects: ['filler'], max_bytes: -1 })
  const large = () => encodeEvents([{ topic: 'T', type: 't', payload: 'x'.repeat(500_000) }])
  const told = follow(log)
  const filler = await site.connection()
  const body = 'x'.repeat(500_000)
  const fill = async () => (await filler.request('filler', body, { timeout: 5000 })).json<{ error?: unknown }>().error
  while (!(await fill()));
  const error = await log.append([large()]).then(
    () => assert.fail('it was stored though there is no room'),
    (cause: SpillwayError) => cause,
  )
  assert.equal(error.code, 'LOG_FAILED')
  assert.match(error.message, /resource|storage|bytes/)
  await streams.purge('filler')
  const { indexes } = await log.append([batch('b')])
  assert.deepEqual(told, [`${indexes[0]} b`])
})

test('appends under one key through several servers at once are one', { skip }, async (t) => {
  const site = await natsSite(t)
  const logs = [await site.open(), await site.open(), await site.open()]
  const told = follow(logs[0] as Log)
  const keys = Array.from({ length: 1500 }, (_, n) => `k${n}`)
  // Each goes through them at its own pace, so that one reads what another stored while it makes its next window.
  const appendAll = async (log: Log) => {
    for (const key of keys) await log.append([batch(key)], { key })
  }
  await Promise.all(logs.map(appendAll))
  await logs[0]?.append([batch('end')])
  await until(() => told.at(-1)?.endsWith(' end') === true, 'the end is told')
  assert.deepEqual(
    told.slice(0, -1).map((line) => line.split(' ')[1]),
    keys,
  )
})
