import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { decodeBatch } from '../../src/core/batch-text.ts'
import { createBroker } from '../../src/core/broker.ts'
import type { StoredEvent, StreamEvent } from '../../src/core/event.ts'
import { sqliteLog } from '../../src/log/sqlite.ts'
import { logPath, type Numbered, noSqlite, numberedTexts } from '../support/log-files.ts'
import type { LogWriterOptions } from '../support/log-writer.ts'
import { type Running, start } from '../support/programs.ts'
import { seededRandom } from '../support/random.ts'

const program = fileURLToPath(new URL('../support/log-writer.js', import.meta.url))
const kills = 200
const publishers = 8
/** Numbers of appends that one run may use. */
const runLength = 1_000_000

/** What a whole line of the writer says: its words without the dot. */
async function nextWords(writer: Running): Promise<string[] | undefined> {
  for (;;) {
    const line = await writer.nextLine()
    if (line === undefined) return undefined
    if (line.endsWith(' .')) return line.split(' ').slice(0, -1)
  }
}

test('D1: what was acknowledged survives 200 kills at any moment under load: whole, once, in order, and nothing else does', {
  skip: noSqlite,
  timeout: 400_000,
}, async (t) => {
  const { Reader } = await import('../../src/log/sqlite/reader.ts')
  const random = seededRandom('crash of 200')
  const path = await logPath(t)
  /** What the log was seen to hold, by index from 1 on; and where each append was acknowledged and seen. */
  const history: Numbered[] = []
  const acknowledged = new Map<number, number[]>()
  const unseen = new Map<number, number[]>()
  const stored = new Map<number, number[]>()
  let newest = 0
  let epoch: string | undefined

  const check = (index: number, text: string): void => {
    const { append, position } = JSON.parse(decodeBatch(text)[0]?.payloadText ?? 'null') as Numbered
    assert.equal(text, numberedTexts(append)[position], `the content of ${index}`)
    const seen = history[index - 1]
    if (seen) assert.deepEqual(seen, { append, position })
    else {
      assert.equal(index, history.length + 1, 'no index is left out')
      history.push({ append, position })
      const indexes = stored.get(append) ?? []
      assert.equal(indexes.push(index), position + 1, `append ${append} is stored once, in order`)
      stored.set(append, indexes)
    }
  }
  /** Reads on from where it was seen last, up to `last`, and from anywhere before. */
  const verify = (last: number): void => {
    const reader = new Reader(path)
    const readFrom = (from: number, to: number, limit: number): void => {
      for (let after = from; after < to; ) {
        const { floor, lost, rows } = reader.read(after, limit, 2 ** 20, last)
        assert.deepEqual([floor, lost], [0, 0])
        assert.equal(rows[0]?.idx, after + 1)
        for (const { idx, data } of rows) if (idx <= to) check(idx, Buffer.from(data).toString())
        after = rows.at(-1)?.idx as number
      }
    }
    readFrom(history.length, last, 256)
    const earlier = random.below(history.length + 1)
    readFrom(earlier, Math.min(last, earlier + 100), 20)
    reader.close()
    assert.ok(history.length >= newest, `acknowledged up to ${newest}, there up to ${history.length}`)
    // Where a log was opened, an append ends.
    const halves = [...stored].slice(-300).filter(([n, indexes]) => indexes.length !== numberedTexts(n).length)
    assert.deepEqual(halves, [])
    for (const [n, indexes] of unseen) assert.deepEqual(stored.get(n), indexes, `append ${n}`)
    unseen.clear()
  }
  /** As a reader of the broker sees it, from a cursor of before; closing the log in between, or killing it again. */
  const follow = async (): Promise<void> => {
    const log = await sqliteLog({ path })
    assert.deepEqual([log.epoch, log.lost, log.floor], [epoch, undefined, 0])
    assert.ok(log.last >= newest)
    const broker = createBroker({ log })
    verify(log.last)
    assert.equal(history.length, log.last)
    const from = Math.max(0, log.last - random.below(2000))
    const reader = broker.subscribe({ from: `${epoch}:${from}` })
    for (let index = from + 1; index <= log.last; index++) {
      const batch = await reader.next()
      assert.deepEqual([batch.index, batch.gap], [index, undefined])
      const { append, position } = (batch.events[0] as StreamEvent).payload as Numbered
      assert.deepEqual({ append, position }, history[index - 1])
    }
    await broker.close()
  }

  let repeat: number[] = []
  let early = 0
  const began = performance.now()
  for (let killed = 0; killed < kills; ) {
    const first = (killed + early + 1) * runLength
    const durability = random.pick(['power', 'process'] as const)
    const options: LogWriterOptions = { path, durability, publishers, first, repeat }
    const writer = start(t, process.execPath, [program, JSON.stringify(options)])
    const isEarly = killed > 0 && random.oneIn(12)
    if (isEarly) void setTimeout(30 + random.below(120)).then(() => writer.child.kill('SIGKILL'))
    let top = first - 1
    let isFirst = true
    for (let words = await nextWords(writer); words; words = await nextWords(writer)) {
      const [what, ...rest] = words
      if (what === 'opened') {
        const opened = JSON.parse(rest.join(' ')) as { epoch: string; last: number; lost: unknown }
        epoch ??= opened.epoch
        assert.deepEqual([opened.epoch, opened.lost], [epoch, null])
        assert.ok(opened.last >= newest, `acknowledged ${newest}, opened at ${opened.last}`)
        verify(opened.last)
        continue
      }
      const n = Number(rest[0])
      const indexes = (rest[1] as string).split(',').map(Number)
      assert.ok(!acknowledged.has(n))
      acknowledged.set(n, indexes)
      unseen.set(n, indexes)
      newest = Math.max(newest, indexes.at(-1) as number)
      top = Math.max(top, n)
      if (isFirst && !isEarly) void setTimeout(random.below(150)).then(() => writer.child.kill('SIGKILL'))
      isFirst = false
    }
    assert.equal(await writer.exit, null, writer.complaints())
    // Whoever waits for an answer that was lost asks again.
    const mayBeLost = [...repeat, ...Array.from({ length: top + publishers - first + 1 }, (_, m) => first + m)]
    repeat = mayBeLost.filter((n) => !acknowledged.has(n))
    if (isEarly) early++
    else if (++killed % 20 === 0) await follow()
  }
  await follow()
  // All of it once more, with what was read while others wrote.
  const count = history.length
  const log = await sqliteLog({ path })
  for (let after = 0; after < count; ) {
    const { batches } = await log.read(after, 1000)
    assert.equal(batches[0]?.index, after + 1)
    for (const { index, events } of batches) {
      const { append, position } = (events[0] as StoredEvent).view.payload as Numbered
      assert.deepEqual({ append, position }, history[index - 1])
    }
    after = batches.at(-1)?.index as number
  }
  await log.close()
  for (const [n, indexes] of acknowledged) assert.deepEqual(stored.get(n), indexes)
  // In the order of the calls, also what was repeated: a kill takes the newest calls of a run, never one before another.
  const newestOf = new Map<number, number>()
  for (const { append } of history) {
    const run = Math.floor(append / runLength)
    assert.ok(append >= (newestOf.get(run) ?? 0), `${append} came after ${newestOf.get(run)}`)
    newestOf.set(run, append)
  }
  const seconds = Math.round((performance.now() - began) / 100) / 10
  console.log(JSON.stringify({ killed: kills, early, appends: acknowledged.size, batches: count, seconds }))
  assert.ok(count > 1000)
})
