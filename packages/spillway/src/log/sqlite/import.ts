import { closeSync, existsSync, fsyncSync, openSync, renameSync } from 'node:fs'
import path from 'node:path'
import { encodeBatch } from '../../core/batch-text.ts'
import { systemClock } from '../../core/clock.ts'
import { SpillwayError } from '../../core/errors.ts'
import type { HistoryBatch } from '../../core/log.ts'
import type { FilePart } from '../sqlite.ts'
import { checkNoJournal, lock, problem, removeLog, unfinishedImport, Writer } from './writer.ts'

/** See `importSqlite`. */
export async function importFile(target: string, parts: Parts): Promise<number> {
  const held = lock(target)
  try {
    if (existsSync(target)) {
      throw new SpillwayError('LOG_UNUSABLE', `There is a log already: ${target}.`)
    }
    checkNoJournal(target)
    return await fill(target, parts)
  } finally {
    held.close()
  }
}

type Parts = AsyncIterable<FilePart> | Iterable<FilePart>

async function fill(target: string, parts: Parts): Promise<number> {
  const unfinished = unfinishedImport(target)
  removeLog(unfinished)
  const unlimited = Number.POSITIVE_INFINITY
  const limits = { capacity: unlimited, maxBytes: unlimited, maxAge: unlimited }
  const writer = new Writer({ path: unfinished, durability: 'power', ...limits })
  let count = 0
  let isOpen = true
  try {
    for await (const part of parts) {
      if (!('batches' in part)) {
        writer.skip('lost' in part ? part.lost : part.removed)
        continue
      }
      append(writer, part.batches)
      count += part.batches.length
    }
    writer.close()
    isOpen = false
    takePlace(unfinished, target)
    return count
  } finally {
    if (isOpen) writer.close()
    removeLog(unfinished)
  }
}

function takePlace(unfinished: string, target: string): void {
  try {
    // The mark first, so that a log never stands without it; without its log it says nothing.
    renameSync(`${unfinished}-mark`, `${target}-mark`)
    renameSync(unfinished, target)
    syncFolder(path.dirname(target))
  } catch (error) {
    throw problem(error, target)
  }
}

/** How far clocks may differ, in milliseconds. A log goes on from its newest time, so one far ahead would age all else. */
const mostAhead = 86_400_000

function append(writer: Writer, batches: readonly HistoryBatch[]): void {
  const ahead = batches.find(({ time }) => time > systemClock.now() + mostAhead)
  if (ahead) {
    const { index, time } = ahead
    const message = `Index ${index} has a time in the future, ${time} Unix milliseconds. Correct it, or the clock.`
    throw new SpillwayError('INVALID', message)
  }
  const texts = batches.map(({ events, index, time }) => ({ text: encodeBatch(events), index, time }))
  const [outcome] = writer.commit([{ batches: texts, key: undefined, digest: 0, expected: undefined }], 0)
  if (outcome && 'code' in outcome) throw new SpillwayError(outcome.code, outcome.message)
}

/** So that the names survive a power cut. */
function syncFolder(folder: string): void {
  // Windows has no way to, and needs none.
  if (process.platform === 'win32') return
  const file = openSync(folder, 'r')
  fsyncSync(file)
  closeSync(file)
}
