import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createBroker } from '../../src/core/broker.ts'
import { encodeEvents } from '../../src/core/event.ts'
import type { RightsChange } from '../../src/core/log.ts'
import { postgresLog } from '../../src/log/postgres.ts'
import { until } from '../support/http.ts'
import { batch, follow, keysOf, newClient, newLog, newName, noPostgres, readAll } from '../support/postgres.ts'
import { withCode } from '../support/waiting.ts'

const skip = noPostgres

test('all servers tell the same batches once, in one order, whoever appended', { skip }, async (t) => {
  const name = newName()
  const logs = await Promise.all([1, 2, 3].map(() => newLog(t, { name })))
  assert.equal(new Set(logs.map(({ epoch }) => epoch)).size, 1)
  const told = logs.map(follow)
  const publish = async (server: number) => {
    const log = logs[server] as (typeof logs)[0]
    for (let n = 0; n < 50; n++) {
      const appended = await Promise.all(
        [0, 1, 2].map((m) => log.append([batch(`${server}.${n}.${m}`), batch(`${server}.${n}.${m}+`)])),
      )
      const last = Math.max(...appended.flatMap(({ indexes }) => indexes))
      assert.ok(log.last >= last, 'it resolved before it was told')
    }
  }
  await Promise.all([0, 1, 2].map(publish))
  await until(() => told.every(({ length }) => length >= 900), 'all are told')
  const all = keysOf(await readAll(logs[0] as (typeof logs)[0]))
  assert.equal(all.length, 900)
  assert.deepEqual(
    all.map((key) => Number(key.split(' ')[0])),
    Array.from({ length: 900 }, (_, n) => n + 1),
  )
  for (const batches of told) assert.deepEqual(keysOf(batches), all)
})

test('of servers that expect the same index exactly one wins, and the others learn the newest', { skip }, async (t) => {
  const name = newName()
  const logs = await Promise.all([1, 2, 3, 4].map(() => newLog(t, { name })))
  for (let expected = 0; expected < 30; expected++) {
    const outcomes = await Promise.allSettled(logs.map((log) => log.append([batch('a')], { expected })))
    assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1)
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') {
        assert.deepEqual([outcome.reason.code, outcome.reason.index], ['INDEX_MISMATCH', expected + 1])
      }
    }
  }
})

test('a publish that is repeated through another server gives the first index, and that is told there', {
  skip,
}, async (t) => {
  const name = newName()
  const [first, second] = [await newLog(t, { name }), await newLog(t, { name })]
  const told = follow(second)
  const { indexes } = await first.append([batch('a'), batch('b')], { key: 'k\0owner' })
  assert.deepEqual(await second.append([batch('a'), batch('b')], { key: 'k\0owner' }), { indexes, duplicate: true })
  assert.deepEqual(keysOf(told), ['1 a', '2 b'])
  await assert.rejects(second.append([batch('c')], { key: 'k\0owner' }), withCode('KEY_REUSED'))
})

test('a reader goes from server to server by its cursor, without loss or repetition', { skip }, async (t) => {
  const name = newName()
  const logs = await Promise.all([1, 2].map(() => newLog(t, { name })))
  const brokers = logs.map((log) => createBroker({ log, capacity: 10 }))
  t.after(() => Promise.all(brokers.map((broker) => broker.close())))
  const total = 400
  const publishing = (async () => {
    for (let n = 0; n < total; n++) await brokers[n % 2]?.publish({ topic: 'T', type: 't', key: `${n}`, payload: n })
  })()
  const seen: number[] = []
  let cursor: string | undefined
  for (let hop = 0; seen.length < total; hop++) {
    const reader = brokers[hop % 2]?.subscribe({ from: cursor ?? 'earliest' })
    for (let n = 0; n < 7 && seen.length < total; n++) {
      const next = await reader?.next()
      cursor = next?.cursor
      seen.push(...(next?.events ?? []).map(({ key }) => Number(key)))
    }
    reader?.close()
  }
  await publishing
  assert.deepEqual(
    seen,
    Array.from({ length: total }, (_, n) => n),
  )
})

test('a cursor beyond what there is is told as truncated, after a look whether it is', { skip }, async (t) => {
  const log = await newLog(t)
  const broker = createBroker({ log })
  t.after(() => broker.close())
  await broker.publish({ topic: 'T', type: 't', key: 'a' })
  const reader = broker.subscribe({ from: `${log.epoch}:5`, onLag: 'skip' })
  await reader.ready
  assert.deepEqual((await reader.next()).gap, { after: 5, before: 2, reason: 'truncated' })
  const exact = broker.subscribe({ from: 5, exact: true })
  await assert.rejects(exact.ready, withCode('NOT_KEPT', /Kept: 1 to 1/))
})

test('servers that open a new log at once make one', { skip }, async (t) => {
  const name = newName()
  const logs = await Promise.all(Array.from({ length: 8 }, () => newLog(t, { name })))
  assert.equal(new Set(logs.map(({ epoch }) => epoch)).size, 1)
})

test('logs of other names and schemas have histories of their own', { skip }, async (t) => {
  const sql = await newClient(t)
  await sql`create schema if not exists "Other-one"`
  const [one, other] = [await newLog(t, { name: 'same' }), await newLog(t, { name: 'same', schema: 'Other-one' })]
  await one.append([batch('a')])
  assert.notEqual(one.epoch, other.epoch)
  assert.deepEqual([one.last, other.last], [1, 0])
})

test('changes of rights reach every server once, in order with the batches', { skip }, async (t) => {
  const name = newName()
  const [here, there] = [await newLog(t, { name }), await newLog(t, { name })]
  const heard: string[][] = [[], []]
  for (const [n, log] of [here, there].entries()) {
    log.follow(({ index }) => heard[n]?.push(String(index)), {
      missed: (upTo) => heard[n]?.push(`missed ${upTo}`),
      rights: ({ subject, isRevoked }: RightsChange) => heard[n]?.push(`${subject} ${isRevoked}`),
      ended: () => heard[n]?.push('ended'),
    })
  }
  await here.append([batch('a')])
  here.announce?.({ subject: 'ann', isRevoked: true })
  here.announce?.({ subject: undefined, isRevoked: false })
  assert.deepEqual(heard[0], ['1', 'ann true', 'undefined false'])
  await until(() => heard[1]?.length === 3, 'they are heard there')
  await there.append([batch('b')])
  there.announce?.({ subject: 'bob', isRevoked: false })
  await until(() => heard[0]?.length === 5, 'they are heard here')
  const expected = ['1', 'ann true', 'undefined false', '2', 'bob false']
  assert.deepEqual(heard, [expected, expected])
})

test('a revocation on one server ends the subscription on another', { skip }, async (t) => {
  const name = newName()
  const [one, other] = [
    createBroker({ log: await newLog(t, { name }) }),
    createBroker({ log: await newLog(t, { name }) }),
  ]
  t.after(() => Promise.all([one.close(), other.close()]))
  const reader = other.subscribe({ token: 'ann' })
  await reader.ready
  const next = reader.next()
  one.revoke('ann')
  await assert.rejects(next, withCode('REVOKED'))
})

test('a log that was dropped and made anew takes nothing of the old one, and readers are told', { skip }, async (t) => {
  const sql = await newClient(t)
  const log = await newLog(t)
  const broker = createBroker({ log })
  const reader = broker.subscribe()
  await log.append([batch('a')])
  const { name } = log
  const next = (async () => {
    for await (const _ of reader);
  })()
  await sql.unsafe(
    ['state', 'batches', 'keys', 'answers', 'rights', 'outbox']
      .map((table) => `drop table ${name}_${table};`)
      .join(' ') +
      ['append', 'relay', 'trim', 'announce', 'locate'].map((call) => `drop function ${name}_${call};`).join(' ') +
      `drop type ${name}_end`,
  )
  const again = await newLog(t, { name })
  await assert.rejects(log.append([batch('b')]), withCode('LOG_FAILED', /is there no more/))
  await assert.rejects(next, withCode('SHUTDOWN'))
  assert.deepEqual(await readAll(again), [])
})

test('a history that was set back to an older state ends, and goes on under another epoch', { skip }, async (t) => {
  const sql = await newClient(t)
  const [log, other] = await (async () => {
    const first = await newLog(t)
    return [first, await newLog(t, { name: first.name })] as const
  })()
  await log.append([batch('a'), batch('b'), batch('c')])
  await until(() => other.last === 3, 'the other is told')
  const ended: string[] = []
  for (const one of [log, other]) {
    one.follow(() => {}, { missed() {}, rights() {}, ended: () => ended.push(one.epoch) })
  }
  await sql.unsafe(`delete from ${log.name}_batches where idx > 1`)
  await assert.rejects(log.append([batch('d')]), withCode('LOG_FAILED', /Nothing was stored/))
  await assert.rejects(other.append([batch('d')]), withCode('LOG_FAILED', /Nothing was stored/))
  assert.equal(ended.length, 2)
  const again = await newLog(t, { name: log.name })
  assert.notEqual(again.epoch, log.epoch)
  assert.deepEqual(keysOf(await readAll(again)), ['1 a'])
})

test('other batches under indexes that were told end the history as well', { skip }, async (t) => {
  const sql = await newClient(t)
  const log = await newLog(t)
  await log.append([batch('a'), batch('b')])
  let hasEnded = false
  log.follow(() => {}, { missed() {}, rights() {}, ended: () => (hasEnded = true) })
  await sql.unsafe(`update ${log.name}_batches set total = total + 1, data = 'another' where idx = 2`)
  await until(() => hasEnded, 'it is noticed')
})

test('rows that somebody deletes are told as lost, to readers and followers', { skip }, async (t) => {
  const sql = await newClient(t)
  const log = await newLog(t)
  await log.append(['a', 'b', 'c', 'd', 'e', 'f'].map((key) => batch(key)))
  await sql.unsafe(`delete from ${log.name}_batches where idx in (1, 4)`)
  const pages = []
  for (let after = 0; after < 6; ) {
    const { floor, lost, batches } = await log.read(after, 10)
    pages.push([floor, lost, keysOf(batches)])
    after = batches.at(-1)?.index ?? 6
  }
  assert.deepEqual(pages, [
    [0, 1, ['2 b', '3 c']],
    [0, 4, ['5 e', '6 f']],
  ])
  const broker = createBroker({ log })
  t.after(() => broker.close())
  const { gap } = await broker.subscribe({ from: 'earliest', onLag: 'skip' }).next()
  assert.deepEqual(gap, { after: 0, before: 2, reason: 'corrupt' })
})

test('starts are found among a hundred thousand batches by a few looks', { skip }, async (t) => {
  const log = await newLog(t)
  await log.append(new Array(100_000).fill(batch('a')))
  const sql = await newClient(t, { max: 1 })
  const looks = async () => {
    await sql`select pg_stat_force_next_flush()`
    const [row] = await sql.unsafe(
      `select idx_scan::int as count, seq_scan::int as all from pg_stat_user_tables where relname = '${log.name}_batches'`,
    )
    return row as unknown as { count: number; all: number }
  }
  await sql`select pg_stat_clear_snapshot()`
  const before = await looks()
  await sql.unsafe(`select ${log.name}_locate(null, 70000)`)
  const after = await looks()
  assert.equal(after.all, before.all)
  assert.ok(after.count - before.count < 60, `${after.count - before.count} looks`)
  assert.equal(await log.locate({ last: 70_000 }), 30_000)
  assert.equal(await log.locate({ since: 0 }), 0)
})

test('the client may turn what it reads into anything', { skip }, async (t) => {
  const { default: postgres } = await import('postgres')
  for (const options of [
    { transform: postgres.pascal },
    { types: { bigint: postgres.BigInt } },
    { prepare: false },
    { fetch_types: true },
    { max: 1 },
    { connection: { default_transaction_isolation: 'serializable' } },
    { connection: { search_path: 'pg_temp', TimeZone: 'Asia/Tokyo' } },
  ]) {
    const sql = await newClient(t, options as Parameters<typeof newClient>[1])
    const log = await newLog(t, { sql, capacity: 100 })
    const told = follow(log)
    await Promise.all([log.append([batch('a')], { key: 'k' }), log.append([batch('b', 7), batch('c')])])
    await log.append([batch('d')], { expected: 8 })
    await sql.begin((tx) => log.publishIn(tx, { topic: 'T', type: 't', key: 'e' }))
    await until(() => told.length === 5, JSON.stringify(options))
    assert.deepEqual(keysOf(told), ['1 a', '7 b', '8 c', '9 d', '10 e'])
    assert.deepEqual(keysOf(await readAll(log)), keysOf(told))
    assert.equal(await log.locate({ last: 2 }), 8)
    await log.close()
  }
})

test('no setting of a session makes an append less durable than was promised', { skip }, async (t) => {
  const sql = await newClient(t, { connection: { synchronous_commit: 'off' } } as Parameters<typeof newClient>[1])
  const log = await newLog(t, { sql })
  const { name } = log
  await sql.unsafe(`
    create table ${name}_seen (setting text);
    create function ${name}_look() returns trigger language plpgsql as $$ begin
      insert into ${name}_seen values (current_setting('synchronous_commit')); return null; end $$;
    create constraint trigger look after insert on ${name}_batches deferrable initially deferred
      for each row execute function ${name}_look()`)
  await log.append([batch('a')])
  const told = follow(log)
  await sql.begin((tx) => log.publishIn(tx, { topic: 'T', type: 't' }))
  await until(() => told.length === 1, 'what was in the outbox is told')
  assert.deepEqual(
    (await sql.unsafe(`select setting from ${name}_seen`)).map(({ setting }) => setting),
    ['on', 'on'],
  )
})

test('what is trimmed before a server has read it is told as missed, and indexes stay in order', {
  skip,
}, async (t) => {
  const log = await newLog(t, { capacity: 5 })
  const { name } = log
  const heard: (number | string)[] = []
  log.follow(({ index }) => heard.push(index), {
    missed: (upTo) => heard.push(`missed ${upTo}`),
    rights() {},
    ended: () => heard.push('ended'),
  })
  // In one statement, which lets go of the oldest as well.
  const other = await newLog(t, { name, capacity: 5 })
  await Promise.all(Array.from({ length: 40 }, (_, n) => other.append([batch(String(n))])))
  await until(() => log.last === 40, 'all is told')
  assert.deepEqual(heard, ['missed 35', 36, 37, 38, 39, 40])
})

test('a log closes while another server has it open, and tells nothing more', { skip }, async (t) => {
  const [first, second] = await (async () => {
    const log = await newLog(t)
    return [log, await newLog(t, { name: log.name })] as const
  })()
  const told = follow(first)
  await first.close()
  await second.append([batch('a')])
  assert.deepEqual(told, [])
  await assert.rejects(first.append([batch('b')]), withCode('CLOSED'))
  await assert.rejects(first.read(0, 1), withCode('CLOSED'))
})

test('a batch beyond maxBytes is refused', { skip }, async (t) => {
  const log = await newLog(t, { maxBytes: 1000 })
  await assert.rejects(
    log.append([encodeEvents([{ topic: 'T', type: 't', payload: 'x'.repeat(1000) }])]),
    withCode('TOO_LARGE'),
  )
  assert.equal(log.last, 0)
  await assert.rejects(postgresLog({ sql: await newClient(t), maxBytes: -1 }), withCode('CONFIG', /maxBytes/))
})
