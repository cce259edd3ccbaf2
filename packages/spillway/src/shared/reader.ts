import { absolutePage, absolutePosition, cell, damaged, entryBytes, type Ring, recordType, wide } from './layout.ts'
import { type Span, SpanReader } from './span.ts'

/** A reader's place in a ring: before the record at `position`. */
export interface Place {
  readonly position: number
  /** How many batches stand before it. */
  readonly seq: number
  /** The index of the last of them. */
  readonly index: number
}

/** A loss that is not told yet. */
export interface Loss {
  /** The last index that was read, and the one up to which batches are gone. */
  readonly after: number
  readonly upTo: number
}

/**
 * One reader's way through a ring.
 *
 * Order  Every record after its place, once.
 * Loss   Exact: `lost` counts the batches that were overwritten, or passed the bound on items, before they were read;
 *        `loss` has the range until `tell` takes it.
 */
export class RingReader {
  lost = 0
  /** How many times records were overwritten before they were read, batches or others. */
  overruns = 0
  readonly #ring: Ring
  readonly #spans: SpanReader
  #position: number
  #seq: number
  #index: number
  #loss: Loss | undefined

  /** `spans`: shared by readers that go side by side. */
  constructor(ring: Ring, { position, seq, index }: Place, spans: SpanReader = new SpanReader(ring)) {
    this.#ring = ring
    this.#spans = spans
    this.#position = position
    this.#seq = seq
    this.#index = index
  }

  get position(): number {
    return this.#position
  }

  /** How many batches stand before its place. */
  get seq(): number {
    return this.#seq
  }

  /** The last index that it read or lost. */
  get index(): number {
    return this.#index
  }

  get loss(): Loss | undefined {
    return this.#loss
  }

  /** The word of TAIL that it has read up to. */
  get tail(): number {
    return (this.#position / 8) | 0
  }

  /** What comes next, from `position` on; `undefined` if that is nothing yet. Look at `loss` first. */
  read(): Span | undefined {
    for (;;) {
      const found = this.#spans.read(this.#position)
      if (found === 'empty') return undefined
      if (found === 'overrun') {
        const { position } = this
        this.#jump(oldestPlace(this.#ring, this.#ring.layout.pages >>> 3))
        if (this.#position === position) return undefined
        this.overruns++
        continue
      }
      this.#dropOld(found)
      if (this.#position < found.position + found.end) return found
    }
  }

  /** The record at `offset` of `span` has been read. */
  pass(span: Span, offset: number): void {
    const type = span.typeAt(offset)
    this.#position = span.position + offset + span.sizeAt(offset)
    if (type === recordType.pad) return
    this.#index = span.indexAt(offset)
    if (type === recordType.batch) this.#seq = span.seqAt(offset) + 1
  }

  /** Forgets the loss: it was told. */
  tell(): void {
    this.#loss = undefined
  }

  /** Loses what has more than `items` batches behind it. */
  #dropOld(span: Span): void {
    const { memory, layout } = this.#ring
    if (layout.items === Number.POSITIVE_INFINITY) return
    const newest = memory.get(cell.newest)
    const { index } = this
    let lost = 0
    for (let at = this.#position - span.position; at < span.end; at = this.#position - span.position) {
      const isKept = span.typeAt(at) !== recordType.pad && ((newest - span.seqAt(at)) | 0) < layout.items
      if (isKept) break
      if (span.typeAt(at) === recordType.batch) lost++
      this.pass(span, at)
    }
    this.#lose(lost, index)
  }

  #jump({ position, seq, index }: Place): void {
    const [lost, after] = [seq - this.#seq, this.#index]
    this.#position = position
    this.#seq = seq
    this.#index = index
    this.#lose(lost, after)
  }

  /** What lies after index `after` and up to its place is gone: `count` batches, or none but the record of a gap. */
  #lose(count: number, after: number): void {
    if (this.#index === after) return
    this.lost += count
    this.#loss = { after: this.#loss?.after ?? after, upTo: this.#index }
  }
}

/** The place of the oldest record that is kept, `slack` pages further on where a writer is at its heels. */
export function oldestPlace(ring: Ring, slack: number = 0): Place {
  const { items } = ring.layout
  const place = search(ring, () => false, slack)
  if (items === Number.POSITIVE_INFINITY) return place
  const wanted = place.seq + ((ring.memory.get(cell.newest) - place.seq) | 0) - items + 1
  if (wanted <= place.seq) return place
  return search(
    ring,
    ({ seq }) => seq <= wanted,
    slack,
    (next) => next.seq <= wanted,
  )
}

/** The place after everything that is published, before the last word if that has been said. */
export function newestPlace(ring: Ring): Place {
  return search(
    ring,
    () => true,
    0,
    ({ position }, end) => position <= end,
  )
}

/** The place after the last kept batch whose index is `index` or less. */
export function placeAfter(ring: Ring, index: number): Place {
  return search(
    ring,
    (entry) => entry.index <= index,
    0,
    (next) => next.index <= index,
  )
}

/**
 * Looks for a place by the table, then record by record. `isBefore`: whether the wanted place is at this entry's or behind
 * it. `isPassed`: whether it is at the place behind a record or further; without it the entry's place is the wanted one.
 */
function search(
  ring: Ring,
  isBefore: (entry: Place) => boolean,
  slack: number,
  isPassed?: (next: Place, end: number) => boolean,
): Place {
  for (let most = slack; ; most += Math.max(1, ring.layout.pages >>> 3)) {
    const end = endOf(ring)
    const entry = searchTable(ring, end, isBefore, most)
    const place = entry && isPassed ? walk(ring, entry, (next) => isPassed(next, end)) : entry
    if (place) return place
    // The page that was published last is overwritten only after more was published.
    if (most >= ring.layout.pages && endOf(ring) === end) throw damaged('INTENT or the table')
  }
}

/** The position behind everything that is published. */
export function endOf({ memory, layout }: Ring): number {
  const tail = memory.load(cell.tail)
  const end = absolutePosition(tail, absolutePage(memory.load(cell.intent), memory.load(cell.epoch)), layout)
  if (!(end >= layout.origin * layout.page && end <= Number.MAX_SAFE_INTEGER)) throw damaged('TAIL, INTENT or EPOCH')
  return end
}

/** The last entry of a published page that satisfies `isBefore`, or the oldest; `undefined` if it may have been overwritten. */
function searchTable(ring: Ring, end: number, isBefore: (entry: Place) => boolean, slack: number): Place | undefined {
  const { memory, layout } = ring
  const claimed = absolutePage(memory.load(cell.intent), memory.load(cell.epoch))
  if (end === layout.origin * layout.page) return { position: end, seq: 0, index: 0 }
  // Entries of pages without a published byte are being written.
  const newest = Math.ceil(end / layout.page) - 1
  const oldest = Math.min(newest, Math.max(layout.origin, claimed - layout.pages + 1 + slack))
  let low = oldest
  let high = newest
  let least = newest
  while (low < high) {
    const middle = high - Math.floor((high - low) / 2)
    least = Math.min(least, middle)
    if (isBefore(entryOf(ring, middle, claimed))) low = middle
    else high = middle - 1
  }
  const entry = entryOf(ring, low, claimed)
  const claimedNow = absolutePage(memory.add(cell.intent, 0), memory.load(cell.epoch))
  if (claimedNow - Math.min(low, least) >= layout.pages) return undefined
  if (!(entry.position >= low * layout.page && entry.position <= end)) throw damaged('the table')
  return entry
}

function entryOf({ memory, layout }: Ring, page: number, claimed: number): Place {
  const bytes = new Uint8Array(entryBytes)
  memory.copyOut(layout.table + (page % layout.pages) * entryBytes, bytes)
  const [tail = 0, seqLow = 0, seqHigh = 0, indexLow = 0, indexHigh = 0] = new Int32Array(bytes.buffer)
  return {
    position: absolutePosition(tail, claimed, layout),
    seq: wide(seqLow, seqHigh),
    index: wide(indexLow, indexHigh),
  }
}

/** Passes records, up to the last word; `undefined` if they were overwritten. */
function walk(ring: Ring, place: Place, isPassed: (next: Place) => boolean): Place | undefined {
  const spans = new SpanReader(ring, ring.layout.page)
  let here = place
  for (;;) {
    const found = spans.read(here.position)
    if (found === 'overrun') return undefined
    if (found === 'empty') return here
    for (let at = 0; at < found.end; at += found.sizeAt(at)) {
      const next = placeBehind(found, at, here)
      const type = found.typeAt(at)
      const isLast = type === recordType.closed || type === recordType.error
      if (isLast || !isPassed(next)) return here
      here = next
    }
  }
}

function placeBehind(span: Span, at: number, before: Place): Place {
  const position = span.position + at + span.sizeAt(at)
  const type = span.typeAt(at)
  if (type === recordType.pad) return { ...before, position }
  const seq = span.seqAt(at)
  return { position, seq: type === recordType.batch ? seq + 1 : seq, index: span.indexAt(at) }
}
