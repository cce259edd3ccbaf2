import { batchEnd, encodeBatch } from '../../core/batch-text.ts'
import { systemClock } from '../../core/clock.ts'
import { SpillwayError } from '../../core/errors.ts'
import { type HistoryBatch, latestTime } from '../../core/log.ts'
import { nextIndex } from '../../core/memory-log.ts'
import type { FilePart } from '../sqlite.ts'
import { type PostgresClient, type PostgresTransaction, rowsOf, unusable } from './client.ts'
import { makeAndFill } from './open.ts'
import type { Names } from './tables.ts'

type Parts = AsyncIterable<FilePart> | Iterable<FilePart>

/** See `importPostgres`. */
export async function importParts(client: PostgresClient, names: Names, parts: Parts): Promise<number> {
  return makeAndFill(client, names, async (tx) => {
    const filler = new Filler(tx, names)
    for await (const part of parts) {
      if ('batches' in part) await filler.add(part.batches)
      else filler.skip('lost' in part ? part.lost.before : part.removed.before)
    }
    await filler.finish()
    return filler.count
  })
}

/** How far clocks may differ, in milliseconds. A log goes on from its newest time, so one far ahead would age all else. */
const mostAhead = 86_400_000

class Filler {
  readonly #tx: PostgresTransaction
  readonly #names: Names
  #last = 0
  #total = 0
  #time = 0
  #isSkipped = false
  count = 0

  constructor(tx: PostgresTransaction, names: Names) {
    this.#tx = tx
    this.#names = names
  }

  /** What was up to `before` is missing, and readers are told so as they come to the next batch. */
  skip(before: number | undefined): void {
    this.#isSkipped = true
    if (before !== undefined) this.#last = Math.max(this.#last, before - 1)
  }

  async add(batches: readonly HistoryBatch[]): Promise<void> {
    if (batches.length === 0) return
    const columns: [string[], string[], string[], string[], string[], string[]] = [[], [], [], [], [], []]
    const texts: string[] = []
    for (const { index, time, events } of batches) {
      checkTime(index, time)
      nextIndex(this.#last, index)
      const previous = this.#isSkipped ? Math.max(this.#last, index - 1) : this.#last
      const text = encodeBatch(events)
      const bytes = Buffer.byteLength(text)
      this.#isSkipped = false
      this.#last = index
      this.#total += bytes
      this.#time = Math.max(this.#time, Math.floor(time))
      const values = [index, previous, ++this.count, this.#total, this.#time, bytes]
      for (const [n, value] of values.entries()) columns[n]?.push(String(value))
      texts.push(text)
    }
    const arrays = columns.map((_, n) => `$${n + 1}::text::bigint[]`).join(', ')
    const query = `INSERT INTO ${this.#names.batches} (idx, previous, seq, total, time, bytes, data)
      SELECT * FROM unnest(${arrays}, string_to_array($7, E'\\x1d'))`
    await this.#run(query, [...columns.map((column) => `{${column.join(',')}}`), texts.join(batchEnd)])
  }

  async finish(): Promise<void> {
    await this.#run(`UPDATE ${this.#names.state} SET last = $1::text::bigint`, [String(this.#last)])
  }

  async #run(query: string, parameters: string[]): Promise<void> {
    try {
      await rowsOf(this.#tx, query, parameters)
    } catch (error) {
      throw unusable(error, `Cannot fill the log ${this.#names}`)
    }
  }
}

function checkTime(index: number, time: number): void {
  if (time <= Math.min(systemClock.now() + mostAhead, latestTime)) return
  const message = `Index ${index} has a time in the future, ${time} Unix milliseconds. Correct it, or the clock.`
  throw new SpillwayError('INVALID', message)
}
