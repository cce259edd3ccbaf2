import assert from 'node:assert/strict'
import { test } from 'node:test'
import { encodeEvents } from '../../src/core/event.ts'
import type { HistoryBatch } from '../../src/core/log.ts'
import { type FilePart, importJetstream } from '../../src/log/jetstream.ts'
import { cuttableLine, natsSite, noNats } from '../support/nats.ts'
import { withCode } from '../support/waiting.ts'

const skip = noNats
const start = 1_700_000_000_000

const next = encodeEvents([{ topic: 'T', type: 't', key: 'next' }], undefined)

function at(index: number, time = start + index): HistoryBatch {
  return { index, time, events: encodeEvents([{ topic: 'T', type: 't', key: String(index) }], undefined).events }
}

test('a history keeps its indexes and times in a stream, wherever it begins and whatever it skips', {
  skip,
}, async (t) => {
  const site = await natsSite(t)
  const connection = await site.connection()
  const parts = [
    { removed: { after: 0, before: 500 } },
    { batches: [at(500), at(501)] },
    { batches: [at(504), at(2000)] },
  ]
  assert.equal(await importJetstream({ connection, stream: 'events', capacity: 1000, maxAge: 0xffff_ffff }, parts), 4)
  const [log, other] = [await site.open(), await site.open()]
  assert.deepEqual([log.floor, log.last, other.epoch], [499, 2000, log.epoch])
  const { floor, lost, batches } = await log.read(499, 10)
  assert.deepEqual([floor, lost, batches.map(({ index }) => index)], [499, undefined, [500, 501, 504]])
  const rest = await log.read(501, 5000)
  assert.deepEqual([rest.lost, rest.batches.map(({ events }) => events[0]?.key)], [undefined, ['504', '2000']])
  assert.equal(await log.locate({ since: start + 502 }), 501)
  assert.equal(await log.locate({ since: start + 500 }), 499)
  assert.deepEqual((await other.append([next])).indexes, [2001])
  const { config } = await (await site.manager()).streams.info('events')
  assert.deepEqual([config.max_msgs_per_subject, config.max_bytes, config.max_age], [1000, 2 ** 30, 0xffff_ffff * 1e6])
})

test('what is missing in an import is told to readers, also at its end', { skip }, async (t) => {
  const site = await natsSite(t)
  const parts: FilePart[] = [
    { lost: { after: 4, before: 7 } },
    { batches: [at(7)] },
    { lost: { after: 7, before: undefined } },
    { batches: [at(9)] },
    { removed: { after: 9, before: 12 } },
    { batches: [at(13)] },
    { lost: { after: 13, before: 21 } },
  ]
  assert.equal(await importJetstream({ connection: await site.connection(), stream: 'events' }, parts), 3)
  const log = await site.open()
  const page = async (after: number) => {
    const { lost, batches } = await log.read(after, 100)
    return [lost, batches.map(({ index }) => index)]
  }
  assert.deepEqual([log.floor, log.last], [4, 20])
  assert.deepEqual(await page(4), [6, [7]])
  assert.deepEqual(await page(7), [8, [9]])
  assert.deepEqual(await page(9), [11, [13]])
  assert.deepEqual(await page(13), [20, []])
  assert.deepEqual((await log.append([next])).indexes, [21])
  assert.deepEqual(await page(13), [20, [21]])
})

test('an import is there whole or not at all, and until then nobody can open it', { skip }, async (t) => {
  const site = await natsSite(t)
  const connection = await site.connection()
  const manager = await site.manager()
  const into = { connection, stream: 'events' }
  async function* watched(): AsyncGenerator<FilePart> {
    yield { batches: Array.from({ length: 3000 }, (_, n) => at(n + 1)) }
    await assert.rejects(site.open(), withCode('LOG_UNUSABLE', /is being imported/))
    await assert.rejects(importJetstream(into, []), withCode('LOG_UNUSABLE', /already/))
    throw new Error('the file ended')
  }
  await assert.rejects(importJetstream(into, watched()), /the file ended/)
  await assert.rejects(importJetstream(into, [{ batches: [at(2), at(1)] }]), withCode('INDEX_ORDER'))
  await assert.rejects(importJetstream(into, [{ batches: [at(1, 9e15)] }]), withCode('INVALID', /future/))
  const far = importJetstream(into, [{ batches: [at(1), at(1_000_003)] }])
  await assert.rejects(far, withCode('INVALID', /1000001 numbers without a batch.*1000000 are the most/))
  const large = { ...at(2), events: encodeEvents([{ topic: 'T', type: 't', payload: 'x'.repeat(2 ** 20) }]).events }
  await assert.rejects(
    importJetstream(into, [{ batches: [at(1), large] }]),
    withCode('TOO_LARGE', /Index 2 .*max_payload/),
  )
  for (const wrong of [{ stream: 'a.b' }, { connection: {} }, { replicas: 0 }, { maxAge: 1 }] as never[]) {
    await assert.rejects(importJetstream({ ...into, ...(wrong as object) }, []), withCode('CONFIG'))
  }
  await assert.rejects(importJetstream({ ...into, replicas: 3 }, []), withCode('LOG_UNUSABLE', /need a cluster/))
  assert.deepEqual(await manager.streams.names().next(), [])
  assert.equal(await importJetstream(into, []), 0)
  assert.deepEqual((await (await site.open()).append([next])).indexes, [1])
})

test('an import goes on where it was after its connection was cut', { skip }, async (t) => {
  const site = await natsSite(t)
  const line = await cuttableLine(t, site.server.port)
  const total = 6000
  async function* parts(): AsyncGenerator<FilePart> {
    for (let n = 0; n < total; n += 1000) {
      if (n === 2000 || n === 4000) {
        // While the messages of the part before are on their way.
        setImmediate(() => {
          line.cut()
          line.mend()
        })
      }
      yield { batches: Array.from({ length: 1000 }, (_, m) => at(n + m + 1)) }
    }
  }
  assert.equal(await importJetstream({ connection: await site.connection(line.url), stream: 'events' }, parts()), total)
  const log = await site.open()
  assert.equal(log.last, total)
  let after = 0
  while (after < total) {
    const { batches, lost } = await log.read(after, 1000)
    assert.equal(lost, undefined)
    for (const { index, events } of batches) {
      assert.deepEqual([index, events[0]?.key], [after + 1, String(after + 1)])
      after = index
    }
  }
})
