import { type Cursor, parseCursor } from '../core/cursor.ts'
import type { Batch } from '../core/event.ts'
import { unitsOf } from './tab-channel.ts'

interface Item {
  readonly batch: Batch
  readonly at: Cursor
  readonly units: number
}

/**
 * What a leading tab sent and this one has not taken yet: batches that stand between two positions of the stream. Everything
 * between them that the reader may want is here.
 */
export class TabQueue {
  #items: Item[] = []
  #taken = 0
  #units = 0
  #start: Cursor
  #end: Cursor
  #cursor: string

  /** Nothing, at a position. */
  constructor(cursor: string) {
    this.#start = parseCursor(cursor)
    this.#end = this.#start
    this.#cursor = cursor
  }

  get isEmpty(): boolean {
    return this.#taken === this.#items.length
  }

  /** What it holds, in units. */
  get units(): number {
    return this.#units
  }

  /** The position after all of it. */
  get end(): string {
    return this.#cursor
  }

  push(texts: readonly string[], end: string): void {
    for (const text of texts) {
      const batch = JSON.parse(text) as Batch
      const units = unitsOf(text)
      this.#items.push({ batch, at: parseCursor(batch.cursor), units })
      this.#units += units
    }
    this.moveOn(end)
  }

  /** Nothing that is wanted stands between the last batch and `end`. */
  moveOn(end: string): void {
    this.#end = parseCursor(end)
    this.#cursor = end
  }

  shift(): { batch: Batch; units: number } | undefined {
    const item = this.#items[this.#taken]
    if (!item) return undefined
    this.#taken++
    this.#units -= item.units
    this.#start = item.at
    if (this.isEmpty) {
      this.#items = []
      this.#taken = 0
    }
    return item
  }

  /**
   * Takes a reader that has come to `cursor` by another way: passes over what it has, and gives its units. `undefined` if the
   * position is not between start and end, so that it would miss something or get it twice.
   */
  meet(cursor: string): number | undefined {
    const at = parseCursor(cursor)
    let newest = this.#end.index
    for (let n = this.#items.length; n >= this.#taken; n--) {
      const before = n === this.#taken ? this.#start : (this.#items[n - 1] as Item).at
      if (before.epoch === at.epoch && before.index <= at.index && at.index <= newest) return this.#pass(n, at)
      const last = this.#items[n - 1]
      // Indexes do not compare across the end of a history, or of a piece of it.
      if (last && n > this.#taken && isCut(last.batch)) {
        newest = n - 1 === this.#taken ? this.#start.index : (this.#items[n - 2] as Item).at.index
      }
    }
    return undefined
  }

  #pass(upTo: number, at: Cursor): number {
    let units = 0
    for (let n = this.#taken; n < upTo; n++) units += this.#items[n]?.units ?? 0
    this.#items = this.#items.slice(upTo)
    this.#taken = 0
    this.#units -= units
    this.#start = at
    return units
  }
}

function isCut({ gap }: Batch): boolean {
  return gap?.reason === 'epoch' || gap?.reason === 'truncated'
}
