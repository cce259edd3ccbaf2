import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { type TestContext, test } from 'node:test'
import { createBroker } from '../../src/core/broker.ts'
import { encodeEvents } from '../../src/core/event.ts'
import type { RightsChange } from '../../src/core/log.ts'
import { rowsOf } from '../../src/log/postgres/client.ts'
import { type PostgresLog, type PostgresLogOptions, postgresLog } from '../../src/log/postgres.ts'
import { type CutProxy, cutProxy } from '../support/cut-proxy.ts'
import { until } from '../support/http.ts'
import {
  batch,
  follow,
  keysOf,
  newClient,
  newLog,
  newName,
  noPostgres,
  readAll,
  sharedPostgres,
} from '../support/postgres.ts'
import { seededRandom } from '../support/random.ts'
import { deferred, watch, withCode } from '../support/waiting.ts'

const skip = noPostgres

/** A log behind a proxy, and another server of it beside the proxy. */
async function setup(
  t: TestContext,
  options: Partial<PostgresLogOptions> = {},
): Promise<{ proxy: CutProxy; log: PostgresLog; other: PostgresLog }> {
  const url = new URL((await sharedPostgres()).url)
  const proxy = await cutProxy(t, Number(url.port))
  url.port = String(proxy.port)
  const name = newName()
  const other = await newLog(t, { name, ...options })
  // It tries again soon, so that a test need not wait.
  const sql = await newClient(t, { url: url.href, backoff: () => 0.01 })
  const log = await newLog(t, { sql, ...options, name })
  return { proxy, log, other }
}

/** Starts an append whose statement the database has, and whose answer it cannot send. */
async function appendUnanswered<T>(t: TestContext, proxy: CutProxy, log: PostgresLog, append: () => Promise<T>) {
  const sql = await newClient(t)
  const [isLocked, mayEnd] = [deferred(), deferred()]
  const lock = sql.begin(async (tx) => {
    await tx.unsafe(`select from ${log.name}_state for update`)
    isLocked.resolve()
    await mayEnd.promise
  })
  await isLocked.promise
  const appended = append()
  appended.catch(() => {})
  const waiting = () =>
    sql`select from pg_stat_activity where wait_event_type = 'Lock' and query like ${`%${log.name}_append%`}`
  await until(async () => (await waiting()).length > 0, 'the database has it')
  proxy.mode = 'mute'
  mayEnd.resolve()
  await lock
  return appended
}

test('an append whose answer is lost is settled when the database is back: it is stored once', { skip }, async (t) => {
  const { proxy, log, other } = await setup(t)
  const told = follow(log)
  for (let n = 1; n <= 5; n++) {
    const append = appendUnanswered(t, proxy, log, () => log.append([batch(`${n}`)]))
    await until(() => other.last === n, 'it is stored')
    proxy.mode = 'open'
    proxy.cut()
    assert.deepEqual(await append, { indexes: [n], duplicate: false })
  }
  const expected = Array.from({ length: 5 }, (_, n) => `${n + 1} ${n + 1}`)
  assert.deepEqual(keysOf(await readAll(other)), expected)
  assert.deepEqual(keysOf(told), expected)
})

test('connections that end at any moment lose and repeat nothing', { skip }, async (t) => {
  const { proxy, log, other } = await setup(t)
  const told = [follow(log), follow(other)]
  const random = seededRandom('cuts')
  let isOver = false
  const cutting = (async () => {
    while (!isOver) {
      await new Promise((resolve) => setTimeout(resolve, random.below(100)))
      proxy.mode = random.oneIn(3) ? 'mute' : 'open'
      if (proxy.mode === 'mute') await new Promise((resolve) => setTimeout(resolve, random.below(5)))
      proxy.mode = 'open'
      proxy.cut(random.oneIn(2))
    }
  })()
  const publishers = Array.from({ length: 8 }, async (_, publisher) => {
    const indexes: number[] = []
    for (let n = 0; n < 15; n++) indexes.push(...(await log.append([batch(`${publisher} ${n}`)])).indexes)
    return indexes
  })
  const indexes = (await Promise.all(publishers)).flat()
  isOver = true
  await cutting
  await until(() => told.every(({ length }) => length === 120), 'all are told')
  assert.deepEqual(
    indexes.sort((a, b) => a - b),
    Array.from({ length: 120 }, (_, n) => n + 1),
  )
  const stored = keysOf(await readAll(other))
  assert.equal(new Set(stored.map((key) => key.replace(/^\d+ /, ''))).size, 120)
  for (const batches of told) assert.deepEqual(keysOf(batches), stored)
})

test('backends that are terminated under load lose and repeat nothing', { skip }, async (t) => {
  const name = newName()
  const sql = await newClient(t)
  const own = await newClient(t, { connection: { application_name: name }, backoff: () => 0.01 })
  const log = await newLog(t, { sql: own, name })
  const told = follow(log)
  let isOver = false
  const terminating = (async () => {
    while (!isOver) {
      await sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = ${name}`
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  })()
  const publishers = Array.from({ length: 8 }, async (_, publisher) => {
    for (let n = 0; n < 25; n++) await log.append([batch(`${publisher} ${n}`)])
  })
  await Promise.all(publishers)
  isOver = true
  await terminating
  assert.equal(told.length, 200)
  assert.deepEqual(keysOf(await readAll(log)), keysOf(told))
  assert.equal(new Set(told.map(({ events }) => events[0]?.key)).size, 200)
})

test('a follower misses nothing while its connections are gone, notifications or not', { skip }, async (t) => {
  const { proxy, log, other } = await setup(t)
  const told = follow(log)
  for (let n = 0; n < 5; n++) {
    proxy.mode = 'refuse'
    proxy.cut()
    for (let m = 0; m < 10; m++) await other.append([batch(`${n} ${m}`)])
    proxy.mode = 'open'
    await until(() => log.last === other.last, 'it has caught up')
  }
  assert.deepEqual(keysOf(told), keysOf(await readAll(other)))
})

test('what is asked as soon as a connection was reset is answered by the next one', { skip }, async (t) => {
  const url = new URL((await sharedPostgres()).url)
  const proxy = await cutProxy(t, Number(url.port))
  url.port = String(proxy.port)
  const sql = await newClient(t, { url: url.href, max: 1 })
  const beside = await newClient(t)
  const one = () => rowsOf(sql, 'select 1::text')
  await one()
  const asked = watch(rowsOf(sql, 'select pg_sleep(60)::text').catch(one))
  const sleeping = () => beside`select from pg_stat_activity where query = 'select pg_sleep(60)::text'`
  await until(async () => (await sleeping()).length > 0, 'the database has it')
  proxy.reset()
  await until(() => asked.outcome.state !== 'pending', 'it is answered')
  assert.deepEqual(asked.outcome, { state: 'done', value: [['1']] })
})

test('a reader of the log waits while the database is away, until its patience ends', { skip }, async (t) => {
  const { proxy, log } = await setup(t, { patience: 1000 })
  await log.append([batch('a')])
  proxy.mode = 'refuse'
  proxy.cut()
  const page = watch(log.read(0, 10))
  await until(() => proxy.connections === 0, 'it is away')
  proxy.mode = 'open'
  await until(() => page.outcome.state === 'done', 'it is read')
  proxy.mode = 'refuse'
  proxy.cut()
  await assert.rejects(log.read(0, 10), withCode('LOG_FAILED', /could not be read/))
})

test('a database that takes connections and answers nothing holds up nobody for longer than patience', {
  skip,
}, async (t) => {
  const { proxy, log } = await setup(t, { patience: 1000 })
  await log.append([batch('a')])
  proxy.mode = 'mute'
  const page = watch(log.read(0, 10))
  const place = watch(log.locate({ last: 1 }))
  await until(() => page.outcome.state === 'failed' && place.outcome.state === 'failed', 'both have given up')
  await assert.rejects(log.read(0, 10), withCode('LOG_FAILED', /did not answer for 1000 ms/))
  log.announce?.({ subject: 'ann', isRevoked: true })
  const closed = watch(log.close())
  await until(() => closed.outcome.state === 'done', 'it is closed')
})

test('a log is not opened where connections are taken and ended', { skip }, async (t) => {
  const server = createServer((socket) => socket.end())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.close())
  const { port } = server.address() as AddressInfo
  const sql = await newClient(t, { url: `postgres://postgres@127.0.0.1:${port}/postgres` })
  const opened = watch(postgresLog({ sql, patience: 1000 }))
  await until(() => opened.outcome.state === 'failed', 'it has given up')
  const { error } = opened.outcome as { error: unknown }
  assert.ok(withCode('LOG_UNUSABLE', /did not answer for 1000 ms/)(error))
})

test('a database that stays away fails what waits: nothing was stored, and later appends go on', {
  skip,
}, async (t) => {
  const { proxy, log, other } = await setup(t, { patience: 1000 })
  proxy.mode = 'refuse'
  proxy.cut()
  await until(() => proxy.connections === 0, 'it is away')
  const first = log.append([batch('a')])
  first.catch(() => {})
  await new Promise((resolve) => setImmediate(resolve))
  const second = log.append([batch('b')])
  await assert.rejects(second, withCode('LOG_FAILED', /1000 ms.*Nothing was stored/))
  await assert.rejects(first, withCode('LOG_FAILED', /1000 ms/))
  proxy.mode = 'open'
  await until(async () => (await log.append([batch('c')]).catch(() => false)) !== false, 'it is back')
  await other.catchUp?.(Number.MAX_SAFE_INTEGER)
  assert.equal(
    keysOf(await readAll(other))
      .at(-1)
      ?.split(' ')[1],
    'c',
  )
  assert.ok(!keysOf(await readAll(other)).some((key) => key.endsWith('b')))
})

test('an append without an answer says that nobody knows, and its repetition stores once', { skip }, async (t) => {
  const { proxy, log, other } = await setup(t, { patience: 1000 })
  const append = () => log.append([batch('a')], { key: 'k' })
  await assert.rejects(appendUnanswered(t, proxy, log, append), withCode('LOG_FAILED', /not known whether.*same id/))
  proxy.mode = 'open'
  proxy.cut()
  assert.deepEqual(await append(), { indexes: [1], duplicate: true })
  await other.catchUp?.(Number.MAX_SAFE_INTEGER)
  assert.deepEqual(keysOf(await readAll(other)), ['1 a'])
})

test('an append that was given up and arrives late is not stored behind later ones', { skip }, async (t) => {
  const { proxy, log, other } = await setup(t, { patience: 1000 })
  await log.append([batch('warm')])
  proxy.mode = 'hold'
  await assert.rejects(log.append([batch('late')]), withCode('LOG_FAILED', /not known/))
  // The connection that holds it stays; the next append takes another one.
  const later = watch(log.append([batch('next')]))
  proxy.mode = 'open'
  await until(() => later.outcome.state !== 'pending', 'it is settled')
  assert.equal(later.outcome.state, 'done')
  await other.catchUp?.(Number.MAX_SAFE_INTEGER)
  const keys = keysOf(await readAll(other)).map((key) => key.split(' ')[1])
  assert.ok(keys.join() === 'warm,next' || keys.join() === 'warm,late,next', keys.join())
})

test('changes of rights that a server missed for good are told as a change for everybody', { skip }, async (t) => {
  const { proxy, log, other } = await setup(t)
  const heard: RightsChange[] = []
  log.follow(() => {}, { missed() {}, rights: (change) => heard.push(change), ended() {} })
  proxy.mode = 'refuse'
  proxy.cut()
  for (const subject of ['ann', 'bob', 'cid']) other.announce?.({ subject, isRevoked: true })
  const sql = await newClient(t)
  const count = async () => (await sql.unsafe(`select from ${log.name}_rights`)).length
  await until(async () => (await count()) === 3, 'they are stored')
  await sql.unsafe(`delete from ${log.name}_rights where n <= 2`)
  proxy.mode = 'open'
  await until(() => heard.length === 2, 'they are told')
  assert.deepEqual(heard, [
    { subject: undefined, isRevoked: false },
    { subject: 'cid', isRevoked: true },
  ])
})

test('a change of rights that is made while the database is away reaches the others when it is back', {
  skip,
}, async (t) => {
  const { proxy, log, other } = await setup(t)
  const reader = createBroker({ log: other }).subscribe({ token: 'ann' })
  const next = reader.next()
  proxy.mode = 'refuse'
  proxy.cut()
  log.announce?.({ subject: 'ann', isRevoked: true })
  proxy.mode = 'open'
  await assert.rejects(next, withCode('REVOKED'))
})

test('what waits for the database is bounded', { skip }, async (t) => {
  const { proxy, log } = await setup(t, { patience: 1000 })
  proxy.mode = 'refuse'
  proxy.cut()
  const large = encodeEvents([{ topic: 'T', type: 't', payload: 'x'.repeat(100_000) }])
  const codes = await Promise.all(
    Array.from({ length: 800 }, () =>
      log.append([large]).then(
        () => 'stored',
        ({ code }) => code,
      ),
    ),
  )
  assert.deepEqual(new Set(codes), new Set(['LOG_FAILED', 'OVERLOADED']))
  proxy.mode = 'open'
  await until(async () => (await log.append([batch('a')]).catch(() => false)) !== false, 'it is back')
})

test('a log closes while its database is away, within its patience', { skip }, async (t) => {
  const { proxy, log } = await setup(t, { patience: 1000 })
  proxy.mode = 'refuse'
  proxy.cut()
  const append = log.append([batch('a')])
  const closed = log.close()
  await assert.rejects(append, withCode('LOG_FAILED'))
  await closed
})
