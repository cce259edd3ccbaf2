import assert from 'node:assert/strict'
import type * as layoutModule from '../../src/shared/layout.ts'
import type { TinyRing } from '../../src/shared/layout.ts'
import type { Memory } from '../../src/shared/memory.ts'
import type * as readerModule from '../../src/shared/reader.ts'
import type { Place } from '../../src/shared/reader.ts'
import type * as spanModule from '../../src/shared/span.ts'
import type * as waitModule from '../../src/shared/wait.ts'
import type * as writerModule from '../../src/shared/writer.ts'
import type { Scenario } from './explorer.ts'

/** The production code of a ring, or a copy with a mistake in it. */
export type Parts = typeof layoutModule &
  typeof readerModule &
  typeof spanModule &
  typeof waitModule &
  typeof writerModule

/** What a thread came to; `undefined` for the writer. */
export type Outcome = undefined | { readonly start: Place; readonly lost: number; readonly story: readonly Told[] }

type Told = { readonly got: number } | { readonly after: number; readonly upTo: number }

/** Where a reader starts: with the first record, or wherever it finds itself while the writer goes on. */
export type Start = 'first' | 'oldest' | 'newest' | { readonly after: number } | Place

export interface RingScenario extends TinyRing {
  /** Bytes of the payloads. */
  records: readonly number[]
  /** How many records become visible at once. */
  perPublish?: number
  readers: readonly Start[]
  /** Bytes that a reader copies at once. */
  spanBytes?: number
  /** Readers wait for a bell, as where there is no `Atomics.waitAsync`. */
  hasBell?: boolean
  /** After so many accesses the writer's thread is killed, and another takes over. */
  killedAfter?: number
}

/** Cells that are the tests' own: how often the bell was rung, and what became of the first writer. */
const rung = 66
const fate = 67
const [killed, finished] = [1, 2]

/** Ends a thread from within. */
class Killed extends Error {}

/** Does what `memory` does, `most` times. */
function mortal(memory: Memory, most: number): Memory {
  let count = 0
  return new Proxy(memory, {
    get(target, name) {
      const method = Reflect.get(target, name, target) as (...args: unknown[]) => unknown
      return (...args: unknown[]) => {
        if (count++ === most) throw new Killed()
        return method.apply(target, args)
      }
    },
  })
}

/** Indexes skip numbers, so that none can be guessed. */
const indexOf = (seq: number): number => (seq + 1) * 10

/** One writer that appends and closes, and readers that read to the end. */
export function ringScenario(parts: Parts, options: RingScenario): Scenario<Outcome> {
  const { records, perPublish = 1, readers, origin = 0, page, spanBytes, hasBell = false, killedAfter } = options
  const image = parts.tinyRing(options)
  const first: Place = { position: origin * page, seq: 0, index: 0 }
  const ringOf = (memory: Memory) => ({ memory, layout: parts.readLayout(image) })

  function write(memory: Memory, from: Place, claimed: number): undefined {
    const writer = new parts.RingWriter(ringOf(memory), from, claimed, () => {
      memory.add(rung, 1)
      memory.notify(rung)
    })
    if (from !== first) writer.takeOver()
    for (let { seq } = from; seq < records.length; seq++) {
      const payload = new Uint8Array(records[seq] as number).fill(seq + 1)
      writer.append(payload, indexOf(seq), parts.recordType.batch, 0, 0, 1)
      if ((seq + 1) % perPublish === 0) writer.publish()
    }
    writer.append(new Uint8Array(0), writer.index, parts.recordType.closed, 0, 0, 0)
    writer.publish()
  }

  function writeFirst(memory: Memory): undefined {
    let ended = finished
    try {
      write(killedAfter === undefined ? memory : mortal(memory, killedAfter), first, origin - 1)
    } catch (error) {
      if (!(error instanceof Killed)) throw error
      ended = killed
    }
    if (killedAfter === undefined) return
    memory.store(fate, ended)
    memory.notify(fate)
  }

  function writeOn(memory: Memory): undefined {
    memory.wait(fate, 0, Number.POSITIVE_INFINITY)
    if (memory.load(fate) === finished) return
    const intent = memory.load(parts.cell.intent)
    write(memory, parts.newestPlace(ringOf(memory)), parts.absolutePage(intent, memory.load(parts.cell.epoch)))
  }

  function pause(memory: Memory, seen: number): void {
    if (!hasBell) {
      parts.sleep(memory, seen, Number.POSITIVE_INFINITY)
      return
    }
    // A message that was sent before this waits, too.
    const count = memory.load(rung)
    memory.store(parts.cell.bell, 1)
    if (memory.load(parts.cell.tail) === seen) memory.wait(rung, count, Number.POSITIVE_INFINITY)
  }

  function locate(memory: Memory, start: Start): Place {
    if (start === 'first') return first
    if (start === 'oldest') return parts.oldestPlace(ringOf(memory))
    if (start === 'newest') return parts.newestPlace(ringOf(memory))
    return 'after' in start ? parts.placeAfter(ringOf(memory), start.after) : start
  }

  function read(memory: Memory, from: Start): Outcome {
    const ring = ringOf(memory)
    const start = locate(memory, from)
    const reader = new parts.RingReader(ring, start, new parts.SpanReader(ring, spanBytes))
    const story: Told[] = []
    for (;;) {
      const span = reader.read()
      if (reader.loss) story.push(reader.loss)
      reader.tell()
      if (!span) {
        pause(memory, reader.tail)
        continue
      }
      for (let at = reader.position - span.position; at < span.end; at = reader.position - span.position) {
        const type = span.typeAt(at)
        if (type === parts.recordType.closed) return { start, lost: reader.lost, story }
        if (type === parts.recordType.batch) story.push({ got: checked(span, at, records) })
        reader.pass(span, at)
      }
    }
  }

  return {
    image,
    threads: [
      writeFirst,
      ...readers.map((start) => (memory: Memory) => read(memory, start)),
      ...(killedAfter === undefined ? [] : [writeOn]),
    ],
    check(results) {
      for (const result of results) if (result) checkOutcome(result, records.length)
    },
  }
}

/** The index of a record that is what its sequence says. */
function checked(span: spanModule.Span, at: number, records: readonly number[]): number {
  const seq = span.seqAt(at)
  const payload = span.payloadAt(at)
  assert.equal(payload.length, records[seq], 'a record of another length')
  assert.ok(
    payload.every((byte) => byte === seq + 1),
    'a torn payload',
  )
  assert.equal(span.indexAt(at), indexOf(seq))
  return indexOf(seq)
}

function checkOutcome({ start, lost, story }: NonNullable<Outcome>, total: number): void {
  // Whoever started at a place of another life of the ring has no sequence to compare.
  assert.equal(start.index, start.seq * 10, 'a place whose index is not that of its sequence')
  let index = start.index
  let got = 0
  let missed = 0
  for (const told of story) {
    if ('got' in told) {
      assert.equal(told.got, index + 10, 'a batch is missing, or comes twice')
      index = told.got
      got++
      continue
    }
    assert.equal(told.after, index, 'a loss that begins elsewhere')
    assert.ok(told.upTo > index, 'a loss of nothing')
    missed += (told.upTo - index) / 10
    index = told.upTo
  }
  assert.equal(missed, lost, 'a loss that was counted wrongly')
  assert.equal(start.seq + got + lost, total, 'what was got and lost is not what was published')
}
