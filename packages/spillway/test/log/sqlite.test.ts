import assert from 'node:assert/strict'
import { stat } from 'node:fs/promises'
import { type TestContext, test } from 'node:test'
import { createBroker } from '../../src/core/broker.ts'
import { encodeEvents } from '../../src/core/event.ts'
import { type SqliteLog, type SqliteLogOptions, sqliteLog } from '../../src/log/sqlite.ts'
import { logPath, noSqlite } from '../support/log-files.ts'
import { withCode } from '../support/waiting.ts'

const skip = noSqlite

async function opened(t: TestContext, options: SqliteLogOptions): Promise<SqliteLog> {
  const log = await sqliteLog(options)
  t.after(() => log.close())
  return log
}

const batch = (payload: unknown, index?: number) => encodeEvents([{ topic: 'T', type: 't', payload }], index)

test('a history goes on after the file was closed and opened again', { skip }, async (t) => {
  const file = await logPath(t)
  const first = await opened(t, { path: file })
  await first.append([batch('a'), batch('b', 10)])
  await first.close()
  const second = await opened(t, { path: file })
  assert.deepEqual([second.epoch, second.floor, second.last, second.lost], [first.epoch, 0, 10, undefined])
  assert.deepEqual((await second.append([batch('c')])).indexes, [11])
  const { batches } = await second.read(0, 10)
  assert.deepEqual(
    batches.map(({ index, view }) => [index, view.events[0]?.payload]),
    [
      [1, 'a'],
      [10, 'b'],
      [11, 'c'],
    ],
  )
})

test('events come back as they were published, to the byte', { skip }, async (t) => {
  const log = await opened(t, { path: await logPath(t) })
  const events = encodeEvents([
    {
      topic: 'Ünï',
      type: '𝒯',
      key: '"\\',
      namespace: 'n s',
      filterKeys: ['', 'ключ'],
      payload: { '\u2028': '\n\u0000\ud83d\ude00' },
    },
    { topic: 'T', type: 't' },
  ])
  await log.append([events])
  const { batches } = await log.read(0, 10)
  assert.deepEqual(batches[0]?.events, events.events)
})

test('a reader that is older than memory slides from the file onto the buffer while others publish', {
  skip,
}, async (t) => {
  const log = await opened(t, { path: await logPath(t), durability: 'process' })
  const broker = createBroker({ log, capacity: 20 })
  const total = 3000
  for (let n = 0; n < 1000; n++) void broker.publish({ topic: 'T', type: 't', payload: n })
  await broker.publish({ topic: 'T', type: 't', payload: 1000 })
  const reader = broker.subscribe({ from: 'earliest' })
  const publishing = (async () => {
    for (let n = 1001; n < total; n += 10) {
      await Promise.all(
        Array.from({ length: Math.min(10, total - n) }, (_, m) =>
          broker.publish({ topic: 'T', type: 't', payload: n + m }),
        ),
      )
    }
  })()
  for (let index = 1; index <= total; index++) {
    const { index: got, events } = await reader.next()
    assert.deepEqual([got, events[0]?.payload], [index, index - 1])
  }
  await publishing
  assert.ok((await stat(log.path)).size > 0)
})

test('what is beyond the limits goes, and a reader from there is told', { skip }, async (t) => {
  const log = await opened(t, { path: await logPath(t), capacity: 10 })
  const broker = createBroker({ log, capacity: 2 })
  for (let n = 1; n <= 30; n++) await broker.publish({ topic: 'T', type: 't', payload: n })
  assert.equal(log.floor, 20)
  const reader = broker.subscribe({ from: 5, onLag: 'skip' })
  assert.deepEqual((await reader.next()).gap, { after: 5, before: 21, reason: 'retention' })
  assert.equal((await reader.next()).index, 21)
})

test('a publish is remembered by its id after a restart', { skip }, async (t) => {
  const file = await logPath(t)
  const first = await opened(t, { path: file })
  assert.deepEqual((await first.append([batch('a')], { key: 'k' })).indexes, [1])
  await first.close()
  const second = await opened(t, { path: file })
  assert.deepEqual(await second.append([batch('a')], { key: 'k' }), { indexes: [1], duplicate: true })
  await assert.rejects(second.append([batch('b')], { key: 'k' }), withCode('KEY_REUSED'))
  await assert.rejects(second.append([batch('b')], { expected: 7 }), withCode('INDEX_MISMATCH'))
  assert.equal(second.last, 1)
})

test('a file that is open cannot be opened by another, also within one process', { skip }, async (t) => {
  const file = await logPath(t)
  const log = await opened(t, { path: file })
  await assert.rejects(sqliteLog({ path: file }), withCode('LOG_UNUSABLE'))
  assert.deepEqual((await log.append([batch('a')])).indexes, [1])
})
