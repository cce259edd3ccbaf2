import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'
import { encodeBatch } from '../../src/core/batch-text.ts'
import { Database, type Group } from '../../src/log/postgres/database.ts'
import { Names } from '../../src/log/postgres/tables.ts'
import type { PostgresLog } from '../../src/log/postgres.ts'
import { until } from '../support/http.ts'
import { batch, follow, keysOf, newClient, newLog, noPostgres, readAll } from '../support/postgres.ts'
import { withCode } from '../support/waiting.ts'

const skip = noPostgres
const unlimited = Number.MAX_SAFE_INTEGER
const patience = 30_000

const texts = ['a', 'b', 'c'].map((key) => encodeBatch(batch(key).events))
const one: Group = { sizes: [3], texts: texts[0] as string, conditions: undefined }
const several: Group = { sizes: [3, 3, 3], texts: texts.join('\x1d'), conditions: undefined }
const conditional: Group = {
  ...several,
  conditions: {
    leads: [1, 1, 1],
    firsts: [0, 0, 0],
    ends: [0, 0, 0],
    keys: ['', '', ''],
    digests: [0, 0, 0],
    expected: [-1, 1, -1],
    jobs: [1, 2, 3],
    at: [-1, -1, -1],
  },
}

for (const [what, group] of Object.entries({ one, several, conditional })) {
  for (const [kept, others] of [
    [unlimited, 0],
    [unlimited, 40],
    [5, 40],
  ] as const) {
    test(`an append is stored once: ${what}, ${others} others behind it, ${kept} kept`, { skip }, async (t) => {
      const sql = await newClient(t)
      const log = await newLog(t, { sql, capacity: kept })
      const limits = { capacity: kept, maxBytes: unlimited, maxAge: unlimited }
      const names = new Names(log.schema, log.name)
      const opened = { client: sql, names, epoch: log.epoch, durability: 'power', limits, clock: undefined } as const
      const database = new Database(opened, patience)
      const writer = randomUUID()
      await log.append([batch('before')])
      const append = { writer, number: 1, since: 1 }
      const first = await database.append(append, 1, group)
      for (let n = 0; n < others; n++) await log.append([batch(String(n))])
      const again = await database.append(append, first.last + others, group)
      assert.deepEqual({ ...again, floor: first.floor }, first)
      // It follows the others, and makes it too late for the first.
      const next = await database.append({ writer, number: 2, since: first.last }, first.last, one)
      assert.equal(next.last, first.last + others + 1)
      await assert.rejects(database.append(append, 1, group), { code: 'SPW04' })
    })
  }
}

for (const isolation of ['read committed', 'repeatable read', 'serializable'] as const) {
  test(`servers that append at once lose and repeat nothing, with ${isolation} as the default`, { skip }, async (t) => {
    const connect = () => newClient(t, { connection: { default_transaction_isolation: isolation } })
    const first = await newLog(t, { sql: await connect() })
    const servers = [first]
    for (let n = 1; n < 3; n++) servers.push(await newLog(t, { sql: await connect(), name: first.name }))
    const told = servers.map(follow)
    const indexes: number[] = []
    const publish = async (log: PostgresLog, server: number) => {
      for (let n = 0; n < 40; n++) {
        const append = async (what: string, options = {}) => {
          indexes.push(...(await log.append([batch(`${server} ${n} ${what}`)], options)).indexes)
        }
        // Each way has a statement of its own.
        await append('alone')
        await Promise.all([append('together'), append('with it')])
        await append('under a key', { key: `${server} ${n}` })
      }
    }
    await Promise.all(servers.map(publish))
    for (const batches of told) await until(() => batches.length === 480, 'all are told')
    const stored = keysOf(await readAll(first))
    assert.deepEqual(
      indexes.sort((a, b) => a - b),
      stored.map((_, n) => n + 1),
    )
    assert.equal(new Set(stored.map((key) => key.replace(/^\d+ /, ''))).size, 480)
    for (const batches of told) assert.deepEqual(keysOf(batches), stored)
  })
}

test('what an index of the application refuses is said at once, and holds up nobody', { skip }, async (t) => {
  const sql = await newClient(t)
  const log = await newLog(t, { sql })
  await sql.unsafe(`create unique index ${log.name}_texts on ${log.name}_batches (md5(data))`)
  await log.append([batch('a')])
  const repeated = log.append([batch('a')])
  const refused = assert.rejects(repeated, withCode('LOG_FAILED', /refused to store.*_texts.*Nothing was stored/))
  await Promise.resolve()
  const other = log.append([batch('b')])
  await refused
  assert.deepEqual((await other).indexes, [2])
})
