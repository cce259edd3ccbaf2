import { SpillwayError } from '../../core/errors.ts'
import type { PendingBatch } from '../../core/event.ts'
import { nextIndex } from '../../core/memory-log.ts'
import type { RecordKind } from './record.ts'

/** Numbers that one append may skip: each takes a message, since the index of a batch is the sequence of its message. */
export const mostSkipped = 10_000

/** The kinds of the records of an append behind sequence `seq`, where `last` is the newest index. Throws `INDEX_ORDER`. */
export function layOut(batches: readonly PendingBatch[], last: number, seq: number): RecordKind[] {
  const kinds: RecordKind[] = []
  let before = last
  let at = seq
  for (const { index: wanted } of batches) {
    nextIndex(before, wanted)
    const skipped = wanted === undefined ? 0 : wanted - at - 1
    if (skipped < 0) {
      throw new SpillwayError(
        'INDEX_ORDER',
        `Index ${wanted} is used up, the next one is ${at + 1}. Nothing was stored.`,
      )
    }
    if (skipped > mostSkipped) {
      const most = `at most ${mostSkipped} numbers can be skipped at once`
      throw new SpillwayError('INDEX_ORDER', `Index ${wanted} is too far above ${at}: ${most}. Nothing was stored.`)
    }
    for (let n = 0; n < skipped; n++) kinds.push('skipped')
    kinds.push('batch')
    at += skipped + 1
    before = at
  }
  return kinds
}

/** The indexes of an append whose first record has sequence `start`. */
export function indexesOf(batches: readonly PendingBatch[], start: number): number[] {
  let index = start - 1
  return batches.map(({ index: wanted = index + 1 }) => {
    index = wanted
    return index
  })
}
