import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createBroker } from '../../src/core/broker.ts'
import { postgresLog, publishIn } from '../../src/log/postgres.ts'
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
import { deferred, withCode } from '../support/waiting.ts'

const skip = noPostgres
const event = (key: string) => ({ topic: 'T', type: 't', key, payload: { key } })

test('events of a transaction are published exactly if it commits', { skip }, async (t) => {
  const sql = await newClient(t)
  const log = await newLog(t)
  const { name } = log
  const told = follow(log)
  await sql`create table ${sql(`${name}_orders`)} (id text)`
  await sql.begin(async (tx) => {
    await tx`insert into ${tx(`${name}_orders`)} values ('A1')`
    await log.publishIn(tx, event('A1'))
  })
  const undone = sql.begin(async (tx) => {
    await tx`insert into ${tx(`${name}_orders`)} values ('A2')`
    await log.publishIn(tx, event('A2'))
    throw new Error('changed my mind')
  })
  await assert.rejects(undone, /changed my mind/)
  await sql.begin((tx) => log.publishIn(tx, [event('A3'), event('A3+')]))
  await until(() => told.length === 2, 'both are told')
  assert.deepEqual(keysOf(told), ['1 A1', '2 A3 A3+'])
  assert.deepEqual([...(await sql`select id from ${sql(`${name}_orders`)}`)], [{ id: 'A1' }])
  assert.deepEqual([...(await sql`select * from ${sql(`${name}_outbox`)}`)], [])
})

test('what a savepoint takes back is not published, the rest of its transaction is', { skip }, async (t) => {
  const sql = await newClient(t)
  const log = await newLog(t)
  const told = follow(log)
  await sql.begin(async (tx) => {
    await log.publishIn(tx, event('a'))
    const inner = tx.savepoint(async (point) => {
      await log.publishIn(point, event('b'))
      throw new Error('no')
    })
    await assert.rejects(inner, /no/)
    await log.publishIn(tx, event('c'))
  })
  await until(() => told.length === 2, 'both are told')
  assert.deepEqual(keysOf(told), ['1 a', '2 c'])
})

test('a transaction that stays open holds up nobody, and its batches come when it commits, in their order', {
  skip,
}, async (t) => {
  const sql = await newClient(t)
  const log = await newLog(t)
  const told = follow(log)
  const [isWritten, mayCommit] = [deferred(), deferred()]
  const long = sql.begin(async (tx) => {
    await log.publishIn(tx, event('long 1'))
    isWritten.resolve()
    await mayCommit.promise
    await log.publishIn(tx, event('long 2'))
  })
  await isWritten.promise
  await sql.begin((tx) => log.publishIn(tx, event('short')))
  await log.append([batch('appended')])
  await until(() => told.length === 2, 'the others are told')
  mayCommit.resolve()
  await long
  await until(() => told.length === 4, 'all are told')
  const keys = told.map(({ events }) => events[0]?.key)
  assert.deepEqual(keys.slice(0, 2).sort(), ['appended', 'short'])
  assert.deepEqual(keys.slice(2), ['long 1', 'long 2'])
})

test('a program without a server publishes too, and a server that comes later moves it into the log', {
  skip,
}, async (t) => {
  const sql = await newClient(t)
  const log = await newLog(t)
  const { name } = log
  await log.close()
  for (let n = 1; n <= 3; n++) await sql.begin((tx) => publishIn(tx, event(`${n}`), { name }))
  const again = await newLog(t, { name })
  await until(() => again.last === 3, 'they are moved')
  assert.deepEqual(keysOf(await readAll(again)), ['1 1', '2 2', '3 3'])
})

test('many transactions at once are moved once each by all servers, those of one program in its order', {
  skip,
}, async (t) => {
  const name = newName()
  const logs = await Promise.all([1, 2, 3].map(() => newLog(t, { name })))
  const told = logs.map(follow)
  const sql = await newClient(t, { max: 5 })
  const programs = [0, 1, 2, 3, 4].map(async (program) => {
    for (let n = 0; n < 40; n++) {
      await sql.begin(async (tx) => {
        for (const part of ['a', 'b']) await publishIn(tx, event(`${program} ${n} ${part}`), { name })
      })
    }
  })
  await Promise.all(programs)
  await until(() => told.every(({ length }) => length === 400), 'all are told')
  const keys = told.map((batches) => batches.map(({ events }) => events[0]?.key ?? ''))
  for (const program of [0, 1, 2, 3, 4]) {
    const expected = Array.from({ length: 40 }, (_, n) => ['a', 'b'].map((part) => `${program} ${n} ${part}`)).flat()
    for (const all of keys)
      assert.deepEqual(
        all.filter((key) => key.startsWith(`${program} `)),
        expected,
      )
  }
  assert.deepEqual(keys[1], keys[0])
  assert.deepEqual(keys[2], keys[0])
})

test('ten thousand batches of one transaction are moved in rounds, in their order', { skip }, async (t) => {
  const sql = await newClient(t)
  const log = await newLog(t, { capacity: 20_000 })
  const told = follow(log)
  await sql.unsafe(
    `insert into ${log.name}_outbox (bytes, data) select 10, concat_ws(E'\\x1f', 'T', 't', n, '', 'null') from generate_series(1, 10000) n`,
  )
  await until(() => told.length === 10_000, 'all are told')
  assert.ok(told.every(({ index, events }, n) => index === n + 1 && events[0]?.key === String(n + 1)))
})

test('a broker delivers them as any others, and limits count', { skip }, async (t) => {
  const sql = await newClient(t)
  const log = await newLog(t, { capacity: 10 })
  const broker = createBroker({ log })
  t.after(() => broker.close())
  const reader = broker.subscribe({ topics: { T: ['k'] } })
  await sql.begin((tx) => log.publishIn(tx, [event('other'), event('k')]))
  const { events } = await reader.next()
  assert.deepEqual(
    events.map(({ key, payload }) => [key, payload]),
    [['k', { key: 'k' }]],
  )
  for (let n = 0; n < 30; n++) await sql.begin((tx) => log.publishIn(tx, event(String(n))))
  await until(() => log.last === 31, 'all are moved')
  await until(async () => (await log.read(0, 1)).floor === 21, 'the oldest have gone')
})

test('bad events reject before anything is put there, and the transaction can go on', { skip }, async (t) => {
  const sql = await newClient(t)
  const log = await newLog(t, { maxBytes: 1000 })
  const told = follow(log)
  await sql.begin(async (tx) => {
    const publish = (events: unknown) => log.publishIn(tx, events as never)
    await assert.rejects(publish({ topic: '', type: 't' }), withCode('INVALID', /topic/))
    await assert.rejects(publish([event('a'), { ...event('b'), when: 1 }]), withCode('INVALID', /events\[1\].*when/))
    await assert.rejects(publish(undefined), withCode('INVALID'))
    await assert.rejects(publish({ ...event('c'), payload: 'x'.repeat(1000) }), withCode('TOO_LARGE'))
    await assert.rejects(publishIn(tx, event('d'), { name: 'Not a name' }), withCode('CONFIG', /name/))
    await publish([])
    await publish(event('good'))
  })
  await until(() => told.length === 1, 'it is told')
  assert.deepEqual(keysOf(told), ['1 good'])
})

test('a role that may insert into the outbox, and nothing else, publishes', { skip }, async (t) => {
  const owner = await newClient(t)
  const log = await newLog(t)
  const told = follow(log)
  await owner.unsafe(`create role application login; grant insert on ${log.name}_outbox to application`)
  const { url } = await sharedPostgres()
  const sql = await newClient(t, { url: url.replace('postgres@', 'application@') })
  await sql.begin((tx) => publishIn(tx, event('a'), { name: log.name }))
  await until(() => told.length === 1, 'it is told')
  const missing = sql.begin((tx) => tx.unsafe(`select from ${log.name}_outbox`))
  await assert.rejects(missing, /permission denied/)
})

test('where there is no such log the error says so, and the transaction rolls back', { skip }, async (t) => {
  const sql = await newClient(t)
  const name = newName()
  const undone = sql.begin((tx) => publishIn(tx, event('a'), { name }))
  await assert.rejects(undone, withCode('LOG_UNUSABLE', new RegExp(`no log public.${name}.*open it once`)))
})

test('a server whose move was cut off leaves them where they are', { skip }, async (t) => {
  const sql = await newClient(t)
  const name = newName()
  const log = await newLog(t, { name })
  await log.close()
  for (let n = 0; n < 50; n++) await sql.begin((tx) => publishIn(tx, event(`${n}`), { name }))
  // Its move waits for a lock when its connections end.
  const [isLocked, mayEnd] = [deferred(), deferred()]
  const lock = sql.begin(async (tx) => {
    await tx.unsafe(`select from ${name}_state for update`)
    isLocked.resolve()
    await mayEnd.promise
  })
  await isLocked.promise
  const own = await newClient(t, { connection: { application_name: name } })
  const cut = await postgresLog({ sql: own, name })
  const waiting = () =>
    sql`select pid from pg_stat_activity where application_name = ${name} and wait_event_type = 'Lock'`
  await until(async () => (await waiting()).length > 0, 'it waits')
  await sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = ${name}`
  mayEnd.resolve()
  await lock
  const other = await newLog(t, { name })
  await until(() => other.last === 50 && cut.last === 50, 'all are moved')
  const expected = Array.from({ length: 50 }, (_, n) => `${n + 1} ${n}`)
  assert.deepEqual(keysOf(await readAll(other)), expected)
  await cut.close()
})
