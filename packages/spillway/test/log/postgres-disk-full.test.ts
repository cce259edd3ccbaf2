import assert from 'node:assert/strict'
import { chownSync, statSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { encodeEvents } from '../../src/core/event.ts'
import { postgresLog } from '../../src/log/postgres.ts'
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
import { noDisks, smallDisk } from '../support/small-disk.ts'
import { withCode } from '../support/waiting.ts'

const skip = noPostgres || noDisks

test('a full disk refuses appends, stores nothing of them, and takes the next when there is room', {
  skip,
}, async (t) => {
  const { folder: data } = await sharedPostgres()
  const sql = await newClient(t)
  const disk = await smallDisk(t, 12)
  if (!disk) return
  const { uid, gid } = statSync(path.join(data, 'data'))
  chownSync(disk.folder, uid, gid)
  await sql.unsafe(`create tablespace small location '${disk.folder}'`)
  const own = await newClient(t, { connection: { default_tablespace: 'small' } })
  const name = newName()
  const log = await newLog(t, { sql: own, name })
  const told = follow(log)
  await log.append([batch('a')])
  await own.unsafe(`create table ballast as select repeat(md5(n::text), 30) from generate_series(1, 8000) n`)
  const large = () => encodeEvents([{ topic: 'T', type: 't', key: 'large', payload: incompressible(300_000) }])
  let stored = 1
  const fill = async () => {
    for (;;) {
      await log.append([large()])
      stored++
    }
  }
  await assert.rejects(fill(), withCode('LOG_FAILED', /No space left on device.*Nothing was stored/))
  await assert.rejects(log.append([batch('b'), large()]), withCode('LOG_FAILED'))
  assert.equal(log.last, stored)
  await sql.unsafe('drop table ballast')
  await sql.unsafe('checkpoint')
  await until(async () => (await log.append([batch('c')]).catch(() => false)) !== false, 'there is room')
  assert.deepEqual(keysOf(await readAll(log)), keysOf(told))
  assert.deepEqual([log.last, told.length], [stored + 1, stored + 1])
  const reader = await postgresLog({ sql: own, name })
  assert.equal(reader.last, stored + 1)
  await reader.close()
})

/** Text that a database cannot make smaller. */
function incompressible(length: number): string {
  let text = ''
  while (text.length < length) text += Math.random().toString(36).slice(2)
  return text.slice(0, length)
}
