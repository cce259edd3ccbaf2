import assert from 'node:assert/strict'
import { test } from 'node:test'
import { freePort, startPostgres } from '@spillway/engines'
import type postgres from 'postgres'
import {
  importPostgres,
  type PostgresClient,
  type PostgresLogOptions,
  type PostgresTransaction,
  postgresLog,
} from '../../src/log/postgres.ts'
import { importSqlite, openSqliteFile, sqliteLog } from '../../src/log/sqlite.ts'
import { logPath, noSqlite } from '../support/log-files.ts'
import { batch, keysOf, newClient, newLog, newName, noPostgres, readAll, sharedPostgres } from '../support/postgres.ts'
import { withCode } from '../support/waiting.ts'

const skip = noPostgres

/** Compiles: the client fits, whatever types it was taught, and so do its transactions. */
export const fits = {
  client: (sql: postgres.Sql): PostgresClient => sql,
  taught: (sql: postgres.Sql<{ bigint: bigint }>): PostgresClient => sql,
  transaction: (tx: postgres.TransactionSql): PostgresTransaction => tx,
  reserved: (sql: postgres.ReservedSql): PostgresTransaction => sql,
}

test('options that make no sense are refused with their name', { skip }, async (t) => {
  const sql = await newClient(t)
  const wrong: [Record<string, unknown>, RegExp][] = [
    [{ sql: undefined }, /sql/],
    [{ sql: {} }, /sql/],
    [{ name: '' }, /name/],
    [{ name: 'Upper' }, /name/],
    [{ name: '1st' }, /name/],
    [{ name: 'a"; drop table x; --' }, /name/],
    [{ name: 'a'.repeat(41) }, /name/],
    [{ name: 7 }, /name/],
    [{ schema: '' }, /schema/],
    [{ schema: 'a"b' }, /schema/],
    [{ durability: 'ram' }, /durability/],
    [{ capacity: -1 }, /capacity/],
    [{ maxAge: 1.5 }, /maxAge/],
    [{ patience: 0 }, /patience/],
    [{ patience: 2 ** 31 }, /patience/],
  ]
  for (const [options, message] of wrong) {
    await assert.rejects(postgresLog({ sql, ...options } as PostgresLogOptions), withCode('CONFIG', message))
  }
})

test('a name may be as long as 40 characters', { skip }, async (t) => {
  const log = await newLog(t, { name: 'n'.repeat(40) })
  assert.deepEqual((await log.append([batch('a')])).indexes, [1])
})

test('a database that is not there is said so', { skip }, async (t) => {
  const { url } = await sharedPostgres()
  const refusals: [string, RegExp][] = [
    [`postgres://postgres@127.0.0.1:${await freePort()}/postgres`, /ECONNREFUSED/],
    [url.replace(/postgres$/, 'nothing'), /database "nothing" does not exist/],
    [url.replace('postgres@', 'nobody@'), /role "nobody" does not exist/],
  ]
  for (const [wrong, message] of refusals) {
    const sql = await newClient(t, { url: wrong })
    await assert.rejects(postgresLog({ sql }), withCode('LOG_UNUSABLE', message))
  }
})

test('missing rights are named, and given rights are enough', { skip }, async (t) => {
  const { url } = await sharedPostgres()
  const owner = await newClient(t)
  await owner.unsafe('drop role if exists limited; create role limited login')
  const sql = await newClient(t, { url: url.replace('postgres@', 'limited@') })
  const name = newName()
  await assert.rejects(postgresLog({ sql, name }), withCode('LOG_UNUSABLE', /permission denied for schema public/))
  const made = await newLog(t, { name })
  await assert.rejects(postgresLog({ sql, name }), withCode('LOG_UNUSABLE', /permission denied for table/))
  const tables = ['state', 'batches', 'keys', 'answers', 'rights', 'outbox'].map((table) => `${name}_${table}`)
  await owner.unsafe(`grant select, insert, update, delete on ${tables.join(', ')} to limited`)
  const log = await newLog(t, { name, sql })
  await log.append([batch('a')])
  assert.equal(log.epoch, made.epoch)
  await owner.unsafe(`drop owned by limited; drop role limited`)
})

test('a session that can only read is refused', { skip }, async (t) => {
  const sql = await newClient(t, { connection: { default_transaction_read_only: true } })
  await assert.rejects(postgresLog({ sql }), withCode('LOG_UNUSABLE', /default_transaction_read_only/))
})

test('a schema that is not there, and a database of another encoding, are refused', { skip }, async (t) => {
  const sql = await newClient(t)
  await assert.rejects(postgresLog({ sql, schema: 'nowhere' }), withCode('LOG_UNUSABLE', /no schema nowhere/))
  await sql.unsafe(`create database ascii encoding 'SQL_ASCII' template template0`)
  const { url } = await sharedPostgres()
  const ascii = await newClient(t, { url: url.replace(/postgres$/, 'ascii') })
  await assert.rejects(postgresLog({ sql: ascii }), withCode('LOG_UNUSABLE', /UTF8.*SQL_ASCII/))
})

test('tables of somebody else are refused and not touched', { skip }, async (t) => {
  const sql = await newClient(t)
  const [taken, half] = [newName(), newName()]
  await sql.unsafe(`create table ${taken}_state (epoch text); insert into ${taken}_state values ('mine')`)
  await sql.unsafe(`create table ${half}_keys (mine text)`)
  await assert.rejects(postgresLog({ sql, name: taken }), withCode('LOG_UNUSABLE', /not that of a log/))
  await assert.rejects(postgresLog({ sql, name: half }), withCode('LOG_UNUSABLE', /already exists.*another name/))
  await assert.rejects(importPostgres({ sql, name: half }, []), withCode('LOG_UNUSABLE', /already exists/))
  assert.deepEqual([...(await sql.unsafe(`select * from ${taken}_state`))], [{ epoch: 'mine' }])
  const tables =
    await sql`select relname from pg_class where relkind = 'r' and (relname like ${`${taken}%`} or relname like ${`${half}%`})`
  assert.deepEqual(tables.map(({ relname }) => relname).sort(), [`${taken}_state`, `${half}_keys`].sort())
})

test('a log of a newer format is refused and not touched', { skip }, async (t) => {
  const sql = await newClient(t)
  const log = await newLog(t)
  await log.append([batch('a')])
  await sql.unsafe(`update ${log.name}_state set spillway_format = 2`)
  await assert.rejects(postgresLog({ sql, name: log.name }), withCode('LOG_UNUSABLE', /has format 2/))
})

test('a level of durability that the database does not give is refused with the setting to change', {
  skip,
}, async (t) => {
  const sql = await newClient(t)
  const machine = postgresLog({ sql, durability: 'machine' })
  await assert.rejects(machine, withCode('LOG_UNUSABLE', /"machine".*synchronous_standby_names/))
  const server = await startPostgres({ settings: ['fsync=off'] })
  const careless = await newClient(t, { url: server.url })
  t.after(() => server.remove())
  await assert.rejects(postgresLog({ sql: careless }), withCode('LOG_UNUSABLE', /"power".*fsync = on/))
  const log = await postgresLog({ sql: careless, durability: 'process' })
  assert.deepEqual((await log.append([batch('a')])).indexes, [1])
  await log.close()
})

test('a level that the database stops to give is missed by the next append', { skip }, async (t) => {
  const server = await startPostgres()
  // One connection, which has heard of the settings once it was asked for them.
  const sql = await newClient(t, { url: server.url, max: 1 })
  const log = await newLog(t, { sql })
  t.after(() => server.remove())
  await log.append([batch('a')])
  const set = async (value: string) => {
    await sql.unsafe(`alter system set full_page_writes = ${value}`)
    await sql`select pg_reload_conf()`
    for (;;) {
      const [row] = await sql`show full_page_writes`
      if (row?.full_page_writes === value) return
    }
  }
  await set('off')
  await assert.rejects(log.append([batch('b')]), withCode('LOG_FAILED', /full_page_writes.*Nothing was stored/))
  await assert.rejects(postgresLog({ sql }), withCode('LOG_UNUSABLE', /"power".*full_page_writes = on/))
  await set('on')
  assert.deepEqual((await log.append([batch('b')])).indexes, [2])
})

test('a log on disk moves into the database with its indexes and times', { skip: skip || noSqlite }, async (t) => {
  const path = await logPath(t)
  const file = await sqliteLog({ path })
  await file.append([batch('a'), batch('b', 10), batch('c')])
  await file.close()
  const sql = await newClient(t)
  const name = newName()
  const opened = await openSqliteFile(path)
  assert.equal(await importPostgres({ sql, name }, opened.parts()), 3)
  const times = [...opened.parts()].flatMap((part) => ('batches' in part ? part.batches.map(({ time }) => time) : []))
  opened.close()
  const log = await newLog(t, { name })
  assert.deepEqual([log.floor, log.last], [0, 11])
  assert.deepEqual(keysOf(await readAll(log)), ['1 a', '10 b', '11 c'])
  assert.equal(await log.locate({ since: times[0] as number }), 0)
  assert.deepEqual((await log.append([batch('d')])).indexes, [12])
  await assert.rejects(importPostgres({ sql, name }, []), withCode('LOG_UNUSABLE', /already/))
  const back = await logPath(t)
  const { batches } = await log.read(0, 10)
  const history = batches.map(({ index, events }) => ({ index, events, time: times[0] as number }))
  assert.equal(await importSqlite(back, [{ batches: history }]), 4)
})

test('what is missing in an import is told to readers, also at its end', { skip }, async (t) => {
  const sql = await newClient(t)
  const name = newName()
  const at = (index: number) => ({ index, time: 1_700_000_000_000 + index, events: batch(String(index)).events })
  const parts = [
    { removed: { after: 0, before: 5 } },
    { batches: [at(5), at(6)] },
    { lost: { after: 6, before: undefined } },
    { batches: [at(9)] },
    { lost: { after: 9, before: 21 } },
  ]
  assert.equal(await importPostgres({ sql, name }, parts), 3)
  const log = await newLog(t, { name })
  assert.equal(log.last, 20)
  const page = async (after: number) => {
    const { lost, batches } = await log.read(after, 10)
    return [lost, keysOf(batches)]
  }
  assert.deepEqual(await page(0), [4, ['5 5', '6 6']])
  assert.deepEqual(await page(6), [8, ['9 9']])
  assert.deepEqual(await page(9), [20, []])
  assert.deepEqual((await log.append([batch('new')])).indexes, [21])
  assert.deepEqual(await page(9), [20, ['21 new']])
})

test('an import is there whole or not at all', { skip }, async (t) => {
  const sql = await newClient(t)
  const name = newName()
  const at = (index: number, time = 1_700_000_000_000) => ({ index, time, events: batch(String(index)).events })
  function* broken() {
    yield { batches: [at(1), at(2)] }
    throw new Error('the file ended')
  }
  await assert.rejects(importPostgres({ sql, name }, broken()), /the file ended/)
  await assert.rejects(importPostgres({ sql, name }, [{ batches: [at(2), at(1)] }]), withCode('INDEX_ORDER'))
  await assert.rejects(importPostgres({ sql, name }, [{ batches: [at(1, 9e15)] }]), withCode('INVALID', /future/))
  assert.deepEqual([...(await sql`select from pg_class where relname like ${`${name}%`}`)], [])
  assert.equal(await importPostgres({ sql, name }, [{ batches: [at(1)] }]), 1)
})
