import assert from 'node:assert/strict'
import { test } from 'node:test'
import { connect, headers, type NatsConnection } from '@nats-io/transport-node'
import { startNatsCluster } from '@spillway/engines'
import type { SpillwayError } from '../../src/core/errors.ts'
import { encodeEvents, type PendingBatch, type StoredBatch } from '../../src/core/event.ts'
import type { Log } from '../../src/core/log.ts'
import { Sender } from '../../src/log/jetstream/sender.ts'
import { jetstreamLog } from '../../src/log/jetstream.ts'
import { ManualClock } from '../support/clock.ts'
import { until } from '../support/http.ts'
import { logOverLine, type NatsSite, natsSite, noNats, rememberDisk } from '../support/nats.ts'
import { withCode } from '../support/waiting.ts'

const skip = noNats
const batch = (key: string, index?: number): PendingBatch => encodeEvents([{ topic: 'T', type: 't', key }], index)
const indexesOf = (batches: readonly StoredBatch[]) => batches.map(({ index }) => index)

function follow(log: Log): string[] {
  const told: string[] = []
  log.follow(({ index, events }) => told.push(`${index} ${events[0]?.key}`))
  return told
}

/** `connection`, but the answers of requests are lost for which `isLost` says so, and messages are not sent for which `isDropped` does. */
function lossy(
  connection: NatsConnection,
  isLost: (subject: string) => boolean,
  isDropped: (subject: string) => boolean = () => false,
): NatsConnection {
  return new Proxy(connection, {
    get(target, name) {
      const value = Reflect.get(target, name, target)
      if (name === 'request') {
        return async (subject: string, ...rest: []) => {
          const answer = await target.request(subject, ...rest)
          if (isLost(subject)) throw new Error('the answer was lost')
          return answer
        }
      }
      if (name === 'publish') {
        return (subject: string, ...rest: []) => (isDropped(subject) ? undefined : target.publish(subject, ...rest))
      }
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

/** A log whose next append is stored, and read by the log, while the answer is lost and the engine says nothing else. */
async function withLostAnswer(site: NatsSite) {
  let lost = 0
  const line = lossy(await site.connection(), (subject) => {
    const isLost = lost > 0 && (subject.startsWith('spillway.') || subject.includes('STREAM.INFO'))
    if (isLost) lost--
    return isLost
  })
  const log = await site.open({ connection: line })
  const loseNext = (count: number) => {
    lost = count
  }
  return { log, loseNext }
}

test('an append that is read late, between two attempts, is not stored again', { skip }, async (t) => {
  const { log, loseNext } = await withLostAnswer(await natsSite(t))
  const told = follow(log)
  loseNext(2)
  assert.deepEqual(await log.append([batch('a')]), { indexes: [1], duplicate: false })
  loseNext(2)
  assert.deepEqual(await log.append([batch('b')], { key: 'b' }), { indexes: [2], duplicate: false })
  loseNext(2)
  assert.deepEqual(await log.append([batch('c')], { expected: 2 }), { indexes: [3], duplicate: false })
  loseNext(2)
  assert.deepEqual(await log.append([batch('d', 7)]), { indexes: [7], duplicate: false })
  assert.deepEqual((await log.append([batch('e')])).indexes, [8])
  assert.deepEqual(told, ['1 a', '2 b', '3 c', '7 d', '8 e'])
})

test('an append of nothing gives nothing', { skip }, async (t) => {
  const site = await natsSite(t)
  const log = await site.open()
  assert.deepEqual((await log.append([])).indexes, [])
  assert.deepEqual((await log.append([batch('a')])).indexes, [1])
})

test('keys that could not be read to their end are read again before one is used', { skip }, async (t) => {
  const site = await natsSite(t)
  await (await site.open()).append([batch('a')], { key: 'k' })
  let isDeaf = false
  const line = lossy(
    await site.connection(),
    () => false,
    (subject) => isDeaf && subject.includes('CONSUMER.MSG.NEXT'),
  )
  const log = await site.open({ connection: line })
  isDeaf = true
  const again = log.append([batch('a')], { key: 'k' })
  setTimeout(() => {
    isDeaf = false
  }, 6000)
  assert.deepEqual(await again, { indexes: [1], duplicate: true })
})

test('who reads on has one consumer for all pages', { skip }, async (t) => {
  const site = await natsSite(t)
  let consumers = 0
  const line = lossy(await site.connection(), (subject) => {
    if (subject.includes('CONSUMER.CREATE')) consumers++
    return false
  })
  const log = await site.open({ connection: line })
  for (let n = 0; n < 5; n++) await log.append(Array.from({ length: 1000 }, () => batch('a')))
  await until(() => log.last === 5000, 'all is read')
  consumers = 0
  for (let at = 0; at < log.last; ) at = (await log.read(at, 100)).batches.at(-1)?.index ?? 0
  assert.equal(consumers, 1)
})

test('appends that were given up make room for others', { skip }, async (t) => {
  const site = await natsSite(t)
  const log = await site.open({ patience: 300 })
  const large = encodeEvents([{ topic: 'T', type: 't', payload: 'x'.repeat(900_000) }])
  for (let round = 0; round < 3; round++) {
    await site.server.stop('SIGKILL')
    const given = await Promise.allSettled(Array.from({ length: 30 }, () => log.append([large])))
    assert.ok(given.every((one) => one.status === 'rejected' && one.reason.code === 'LOG_FAILED'))
    site.server = await site.server.restart()
  }
  await until(async () => {
    const error = await log.append([large]).then(
      () => undefined,
      (cause: SpillwayError) => cause,
    )
    assert.notEqual(error?.code, 'OVERLOADED')
    return !error
  }, 'it takes events again')
})

test('large batches behind many small ones are read, though all of them at once would overrun the connection', {
  skip,
}, async (t) => {
  const site = await natsSite(t, { config: 'max_pending: 24MB' })
  const log = await site.open({ maxBytes: 0 })
  const small = Array.from({ length: 5000 }, () => batch('small'))
  for (let n = 0; n < 4; n++) await log.append(small)
  const large = encodeEvents([{ topic: 'T', type: 't', payload: 'x'.repeat(900_000) }])
  for (let n = 0; n < 60; n++) await log.append([large])
  // Over a connection of its own, which is cut if more waits for it.
  const reader = await site.open()
  let read = 19_990
  while (read < 20_060) {
    const { batches } = await reader.read(read, 256)
    assert.deepEqual(batches[0]?.index, read + 1)
    read = batches.at(-1)?.index ?? 0
  }
  assert.equal(read, 20_060)
})

test('a batch that is larger than what is asked for at once is read', { skip }, async (t) => {
  const site = await natsSite(t, { maxPayload: 8 * 2 ** 20 })
  const log = await site.open({ maxBytes: 0 })
  const large = encodeEvents([{ topic: 'T', type: 't', payload: 'x'.repeat(5_000_000) }])
  for (const one of [batch('a'), large, large, batch('b')]) await log.append([one])
  let read = 0
  while (read < 4) {
    const { batches } = await log.read(read, 256)
    assert.deepEqual(batches[0]?.index, read + 1)
    read = batches.at(-1)?.index ?? 0
  }
})

test('while the engine is away, and nobody knows of what kind the next one is, one message is under way at a time', {
  skip,
}, async (t) => {
  const site = await natsSite(t)
  const connection = await site.connection()
  const sender = new Sender(connection, 1000, (kind) => kind)
  t.after(() => sender.close())
  assert.ok(sender.mostAtOnce > 1)
  await site.server.stop('SIGKILL')
  await until(() => connection.info === undefined, 'the connection is away')
  assert.equal(sender.mostAtOnce, 1)
})

test('a revocation that waits for the engine is stored before what is published after it', { skip }, async (t) => {
  const site = await natsSite(t)
  const [a, b] = [await site.open({ patience: 4000 }), await site.open()]
  const told: string[] = []
  b.follow(({ events }) => told.push(`${events[0]?.key}`), {
    missed: () => {},
    ended: () => {},
    rights: ({ subject }) => told.push(`rights of ${subject}`),
  })
  await site.server.stop('SIGKILL')
  a.announce?.({ subject: 'alice', isRevoked: true })
  await assert.rejects(a.append([batch('too late')]), withCode('LOG_FAILED'))
  site.server = await site.server.restart()
  await a.append([batch('after')])
  await until(() => told.length === 2, 'both are told')
  assert.deepEqual(told, ['rights of alice', 'after'])
})

test('an engine that lost what it had acknowledged ends the history, also where servers append all the time', {
  skip,
}, async (t) => {
  const site = await natsSite(t)
  const log = await site.open()
  await log.append([batch('a')])
  const setBack = await rememberDisk(site)
  for (let n = 0; n < 5; n++) await log.append([batch('b')])
  await site.server.stop('SIGKILL')
  await setBack()
  let isOver = false
  const busy = (async () => {
    while (!isOver) {
      const code = await log.append([batch('c')]).then(
        () => undefined,
        (error: SpillwayError) => error.code,
      )
      if (code === 'CLOSED') return
    }
  })()
  site.server = await site.server.restart()
  void log.ended.then(() => {
    isOver = true
  })
  await until(() => isOver, 'the history ends')
  await busy
  assert.notEqual((await site.open()).epoch, log.epoch)
})

/** Stores a record by hand, as a server would. */
async function forge(site: NatsSite, kind: string, head: string, body = '', key?: string) {
  const { config } = await (await site.manager()).streams.info('events')
  const fields = headers()
  fields.set('Spillway', head)
  if (key !== undefined) fields.set('Spillway-Key', key)
  const subject = config.subjects[0]?.replace('*', kind) ?? ''
  await (await site.connection()).request(subject, body, { headers: fields, timeout: 5000 })
}

const body = 'T\x1ft\x1fx\x1f\x1fnull'

test('a log that is opened amid an append that skips numbers is told of it', { skip }, async (t) => {
  const site = await natsSite(t)
  await site.open()
  for (const start of [1, 4]) {
    await forge(site, 'skipped', `1 1700000000000 other.${start}.0 1 3 ${start - 1}`)
    await forge(site, 'skipped', `1 1700000000000 other.${start}.0 2 3 ${start - 1}`)
    const told = follow(await site.open())
    await forge(site, 'batch', `1 1700000000000 other.${start}.0 3 3 ${start - 1}`, body)
    await until(() => told.length === 1, 'it is told')
    assert.deepEqual(told, [`${start + 2} x`])
  }
})

test('a server that was away until nothing was left of what it missed tells so, and appends again', {
  skip,
}, async (t) => {
  const site = await natsSite(t)
  const log = await site.open({ maxAge: 1000 })
  const { line, slow, news } = await logOverLine(t, site)
  await log.append([batch('a')])
  await until(() => slow.last === 1, 'it is told')
  line.cut()
  for (let n = 0; n < 5; n++) await log.append([batch(String(n))])
  await until(async () => (await log.read(0, 1)).floor === 6, 'they are gone')
  line.mend()
  await until(() => slow.last === 6, 'it is told')
  assert.deepEqual([slow.last, news], [6, ['rights undefined', 'missed 6']])
  assert.deepEqual((await slow.append([batch('b')])).indexes, [7])
})

test('a server that was away follows hundreds of megabytes of large batches, and is not cut off for it', {
  skip,
}, async (t) => {
  const site = await natsSite(t)
  const { line, connection, slow } = await logOverLine(t, site)
  const other = await site.open()
  const told: number[] = []
  slow.follow(({ index }) => told.push(index))
  let disconnects = 0
  void (async () => {
    for await (const { type } of connection.status()) if (type === 'disconnect') disconnects++
  })()
  line.cut()
  const large = encodeEvents([{ topic: 'T', type: 't', payload: 'x'.repeat(900_000) }])
  for (let n = 0; n < 300; n++) await other.append([large])
  line.mend()
  await until(
    () => told.length === 300,
    () => `all is followed: ${told.length}, ${disconnects} disconnects`,
  )
  // The line's own, and some before it is known that batches are large. Without that there are a dozen.
  assert.ok(disconnects <= 6, `${disconnects} disconnects`)
})

test('what is no batch may go before batches do, and readers are told of no loss', { skip }, async (t) => {
  const site = await natsSite(t)
  const log = await site.open({ capacity: 3 })
  await log.append([batch('a')])
  for (let n = 0; n < 5; n++) await forge(site, 'skipped', `1 1700000000000 claim.${n} 1 1 -`)
  assert.deepEqual((await log.append([batch('b')])).indexes, [7])
  for (const after of [0, 1]) {
    const { floor, lost, batches } = await log.read(after, 10)
    assert.deepEqual([floor, lost, indexesOf(batches)], [0, undefined, after === 0 ? [1, 7] : [7]])
  }
})

test("a log's time does not fall where a server's clock is behind", { skip }, async (t) => {
  const site = await natsSite(t)
  const at = (wall: number) => Object.assign(new ManualClock(), { wall })
  const [ahead, behind] = [at(2_000_000_000_000), at(1_900_000_000_000)]
  await (await site.open({ clock: ahead })).append([batch('a')])
  const log = await site.open({ clock: behind })
  await log.append([batch('b')])
  assert.equal(await log.locate({ since: 2_000_000_000_000 }), 0)
  assert.equal(await log.locate({ since: 2_000_000_000_001 }), 2)
})

test('what was published by hand and cannot be read holds up nobody', { skip }, async (t) => {
  const site = await natsSite(t)
  const log = await site.open()
  const told = follow(log)
  await log.append([batch('a')])
  await forge(site, 'batch', '1 1700000000000 hand.1 1 1 1', body, '5 %')
  await forge(site, 'rights', '1 1700000000000 hand.2 1 1 1', 'no json')
  await forge(site, 'batch', '1 Infinity hand.3 1 1 1', body)
  await forge(site, 'batch', '1 x hand.4 1 1 1', body)
  await log.append([batch('b')])
  await until(() => told.some((line) => line.endsWith(' b')), 'the next is told')
  const { batches } = await (await site.open()).read(0, 10)
  assert.equal(batches.at(-1)?.events[0]?.key, 'b')
  await assert.rejects(log.append([batch('c')], { expected: 1 }), withCode('INDEX_MISMATCH'))
})

test('servers that append at the same time do not stop a stream of three nodes', { skip }, async (t) => {
  const cluster = await startNatsCluster()
  t.after(() => cluster.stop())
  const logs = await Promise.all(
    cluster.urls.map(async (servers) => {
      const connection = await connect({ servers, maxReconnectAttempts: -1, ignoreClusterUpdates: true })
      t.after(() => connection.close())
      const log = await jetstreamLog({ connection, stream: 'events', replicas: 3 })
      t.after(() => log.close())
      return log
    }),
  )
  const total = 100
  const appends = logs.flatMap((log, n) =>
    Array.from({ length: total }, (_, m) => log.append([batch(`${n}.${m} 1`), batch(`${n}.${m} 2`)])),
  )
  const indexes = (await Promise.all(appends)).flatMap((appended) => appended.indexes)
  assert.equal(new Set(indexes).size, 2 * logs.length * total)
})
