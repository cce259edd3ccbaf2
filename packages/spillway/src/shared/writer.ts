import { SpillwayError } from '../core/errors.ts'
import {
  absolutePage,
  cell,
  entryBytes,
  headerBytes,
  nextSpan,
  type RecordType,
  type Ring,
  recordBytes,
  recordType,
  spanOf,
} from './layout.ts'
import { endOf, newestPlace, type Place } from './reader.ts'
import type { Bell } from './wait.ts'

/** After so many records, or bytes, what was appended is published. */
const maxPending = 64
const maxPendingBytes = 2 ** 15

/**
 * The one writer of a ring. It never waits and knows no readers.
 *
 * Visible  Nothing that was appended is seen before `publish`, which happens by itself after 64 records or 32 KiB.
 * Cost     A read-modify-write for each page, a store for each publish; no allocation.
 */
export class RingWriter {
  readonly #ring: Ring
  readonly #maxPendingBytes: number
  readonly #ringBell: () => void
  /** Low word of the position, in units of 8 bytes, as TAIL holds it. */
  #tail: number
  /** The position in the ring, and the number of the page that the ring begins with this time around. */
  #offset: number
  #lap: number
  /** The highest page that was claimed, and whose entry is written: the same but for a ring that was taken over. */
  #claimed: number
  #filled: number
  /** From here on a claim begins a span of EPOCH. */
  #span: number
  #seq: number
  #index: number
  #pending = 0
  #pendingBytes = 0

  /** Goes on at `place`, the end of what is published. `claimed`: the highest page that was ever claimed. */
  constructor(ring: Ring, place: Place, claimed: number, ringBell: () => void = ignore) {
    const { capacity, logPage, pages } = ring.layout
    const { position, seq, index } = place
    this.#ring = ring
    this.#ringBell = ringBell
    this.#maxPendingBytes = Math.min(maxPendingBytes, ring.layout.largest)
    this.#tail = (position / 8) | 0
    this.#offset = position % capacity
    this.#lap = Math.floor(position / capacity) * pages
    this.#claimed = claimed
    // A page that holds no published byte has no entry that anybody would read.
    this.#filled = this.#lap + Math.ceil(this.#offset / 2 ** logPage) - 1
    this.#span = nextSpan(claimed)
    this.#seq = seq
    this.#index = index
  }

  /** Wakes everybody: the writer before this one may have published and ended before it told. */
  takeOver(): void {
    const { memory } = this.#ring
    memory.notify(cell.tail)
    this.#ringBell()
  }

  /** The index that readers have seen last once they have read all. */
  get index(): number {
    return this.#index
  }

  /** The history begins behind `index`: whoever asks for what came before is told that it is not kept. Call before the first record. */
  beginAfter(index: number): void {
    this.#index = index
  }

  /** Appends a record. Throws `TOO_LARGE`; nothing is stored then. */
  append(payload: Uint8Array, index: number, type: RecordType, tag: number, key: number, events: number): void {
    const { layout, memory } = this.#ring
    const { length } = payload
    const size = recordBytes(length)
    const isLast = type === recordType.closed || type === recordType.error
    // The last word lies in one page, so that no entry leads past it: whoever started there would wait for ever.
    const unit = isLast ? layout.page : layout.capacity
    const most = isLast ? Math.min(layout.page, layout.largest) : layout.largest
    if (size > most) throw tooLarge(length, most - headerBytes)
    const room = unit - (this.#offset & (unit - 1))
    if (size > room) this.#pad(room)
    const seq = this.#seq
    const next = type === recordType.batch ? seq + 1 : seq
    this.#claim(size, next, index)
    const at = layout.data + this.#offset
    memory.put(
      at >>> 2,
      length,
      type | (tag << 16),
      seq | 0,
      (seq / 2 ** 32) | 0,
      index | 0,
      (index / 2 ** 32) | 0,
      key,
      events,
    )
    if (length > 0) memory.copyIn(at + headerBytes, payload)
    this.#seq = next
    this.#index = index
    this.#move(size)
    if (++this.#pending >= maxPending || this.#pendingBytes >= this.#maxPendingBytes) this.publish()
  }

  /** Shows readers what was appended, and wakes those that sleep. */
  publish(): void {
    if (this.#pending === 0) return
    const { memory } = this.#ring
    this.#pending = 0
    this.#pendingBytes = 0
    memory.put(cell.newest, (this.#seq - 1) | 0, this.#index | 0, (this.#index / 2 ** 32) | 0, 0, 0, 0, 0, 0)
    // Cleared before the tail: a reader that sets it after this has yet to compare the tail.
    const isAwaited = memory.load(cell.wait)
    if (isAwaited !== 0) memory.store(cell.wait, 0)
    const isListened = memory.load(cell.bell)
    if (isListened !== 0) memory.store(cell.bell, 0)
    memory.store(cell.tail, this.#tail)
    // All, not one: a thread that was ended may still be in the list, and would take the wake-up with it.
    if (isAwaited !== 0 || memory.load(cell.wait) !== 0) memory.notify(cell.tail)
    if (isListened !== 0 || memory.load(cell.bell) !== 0) this.#ringBell()
  }

  /** Fills the end of the ring, or of a page. */
  #pad(room: number): void {
    const { layout, memory } = this.#ring
    this.#claim(room, this.#seq, this.#index)
    const word = (layout.data + this.#offset) >>> 2
    memory.set(word, room)
    memory.set(word + 1, recordType.pad)
    this.#move(room)
  }

  /** Claims the pages of the next `size` bytes, and writes their entries. `seq` and `index`: what holds after these bytes. */
  #claim(size: number, seq: number, index: number): void {
    const { layout, memory } = this.#ring
    const last = this.#lap + ((this.#offset + size - 1) >>> layout.logPage)
    if (last > this.#claimed) {
      if (last >= this.#span) {
        memory.store(cell.epoch, spanOf(last))
        this.#span = nextSpan(last)
      }
      memory.add(cell.intent, last - this.#claimed)
      this.#claimed = last
    }
    for (let page = this.#filled + 1; page <= last; page++) {
      const slot = page - this.#lap
      if (slot << layout.logPage === this.#offset) this.#fill(slot, this.#tail, this.#seq, this.#index)
      // What starts before the page must not be found from it: a reader whose place is gone would come to a place that is gone.
      else this.#fill(slot, (this.#tail + size / 8) | 0, seq, index)
    }
    if (last > this.#filled) this.#filled = last
  }

  #fill(slot: number, tail: number, seq: number, index: number): void {
    const { layout, memory } = this.#ring
    const word = (layout.table + slot * entryBytes) >>> 2
    memory.put(word, tail, seq | 0, (seq / 2 ** 32) | 0, index | 0, (index / 2 ** 32) | 0, 0, 0, 0)
  }

  #move(size: number): void {
    const { capacity, pages } = this.#ring.layout
    this.#tail = (this.#tail + size / 8) | 0
    this.#pendingBytes += size
    this.#offset += size
    if (this.#offset === capacity) {
      this.#offset = 0
      this.#lap += pages
    }
  }
}

function tooLarge(length: number, most: number): SpillwayError {
  return new SpillwayError(
    'TOO_LARGE',
    `The batch has ${length} bytes as JSON, a shared buffer of this size takes ${most}. Raise its bytes.`,
  )
}

function ignore(): void {}

/** Goes on at the end of what `ring` has published. Throws `CLOSED` if its last word has been said. */
export function writerOf(ring: Ring, bell: Bell): RingWriter {
  const { memory } = ring
  const place = newestPlace(ring)
  if (place.position !== endOf(ring)) throw new SpillwayError('CLOSED', 'The shared buffer was closed.')
  const claimed = absolutePage(memory.load(cell.intent), memory.load(cell.epoch))
  return new RingWriter(ring, place, claimed, () => bell.ring())
}
