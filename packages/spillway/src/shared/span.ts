import type { SpillwayError } from '../core/errors.ts'
import {
  absolutePage,
  cell,
  damaged,
  headerBytes,
  type Layout,
  type RecordType,
  type Ring,
  recordBytes,
  recordType,
  wide,
} from './layout.ts'

/** How many bytes are copied at once, unless one record has more. */
const spanBytes = 2 ** 16

/**
 * A private copy of a piece of the ring: whole records, one behind the other, each known by its offset.
 * Never a view of the ring: what a socket keeps of it would be overwritten under its hands.
 */
export class Span {
  /** Where the ring has its first byte. */
  readonly position: number
  readonly bytes: Uint8Array
  /** Behind its last whole record. */
  readonly end: number
  readonly #words: Int32Array

  /** Throws `INTERNAL` where a record cannot be one: somebody wrote into the ring. */
  constructor(position: number, bytes: Uint8Array, { largest }: Layout) {
    this.position = position
    this.bytes = bytes
    this.#words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2)
    let end = 0
    while (end < bytes.length) {
      const size = this.sizeAt(end)
      if (!(size >= 8 && size <= largest) || (size & 7) !== 0) throw damagedAt(position + end)
      if (end + size > bytes.length) break
      end += size
    }
    this.end = end
  }

  typeAt(offset: number): RecordType {
    return (this.#word(offset + 4) & 0xff) as RecordType
  }

  /** 16 bits of the only topic's hash; 0 where there are several. */
  tagAt(offset: number): number {
    return this.#word(offset + 4) >>> 16
  }

  sizeAt(offset: number): number {
    const length = this.#word(offset)
    return this.typeAt(offset) === recordType.pad ? length : recordBytes(length)
  }

  seqAt(offset: number): number {
    return wide(this.#word(offset + 8), this.#word(offset + 12))
  }

  indexAt(offset: number): number {
    return wide(this.#word(offset + 16), this.#word(offset + 20))
  }

  /** The hash of the only key that finds the record; 0 where there are others. */
  keyAt(offset: number): number {
    return this.#word(offset + 24)
  }

  eventsAt(offset: number): number {
    return this.#word(offset + 28)
  }

  payloadAt(offset: number): Uint8Array {
    const start = offset + headerBytes
    return this.bytes.subarray(start, start + this.#word(offset))
  }

  #word(offset: number): number {
    return this.#words[offset >>> 2] as number
  }
}

/** What is at a position: records, nothing yet, or what has been overwritten. */
export type Found = Span | 'empty' | 'overrun'

/** Copies out of a ring what is whole. */
export class SpanReader {
  readonly #ring: Ring
  readonly #most: number
  readonly #slab: Uint8Array | undefined
  #last: Span | undefined

  /** `isAlone`: no span is looked at after the next one was read, so that all may lie in one piece of memory: 1.6x at 64 bytes. */
  constructor(ring: Ring, most: number = spanBytes, isAlone: boolean = false) {
    this.#ring = ring
    this.#most = most
    this.#slab = isAlone ? new Uint8Array(Math.max(most, ring.layout.largest)) : undefined
  }

  /** What is published from `position` on. Who asks for what was copied last gets the same copy. */
  read(position: number): Found {
    const last = this.#last
    if (last && position >= last.position && position < last.position + last.end) return last
    const { memory, layout } = this.#ring
    const offset = position % layout.capacity
    // Low words: a reader that is 2^32 units behind and more looks close, but its page is gone.
    const ahead = (((memory.load(cell.tail) - position / 8) % 2 ** 32) >>> 0) * 8
    if (ahead === 0) return this.#isGone(position, memory.load(cell.intent)) ? 'overrun' : 'empty'
    const available = Math.min(ahead, layout.capacity - offset)
    for (let most = this.#most; ; most = layout.largest) {
      const length = Math.min(available, most)
      const bytes = this.#slab?.subarray(0, length) ?? new Uint8Array(length)
      memory.copyOut(layout.data + offset, bytes)
      if (this.#isGone(position, memory.add(cell.intent, 0))) return 'overrun'
      if (ahead > layout.capacity) throw damagedAt(position)
      const span = new Span(position, bytes, layout)
      if (span.end > 0) {
        this.#last = span
        return span
      }
      if (bytes.length < most || most >= layout.largest) throw damagedAt(position)
    }
  }

  /** Whether the page of `position` may have been overwritten when INTENT was `intent`. */
  #isGone(position: number, intent: number): boolean {
    const { memory, layout } = this.#ring
    const claimed = absolutePage(intent, memory.load(cell.epoch))
    return claimed - Math.floor(position / layout.page) >= layout.pages
  }
}

function damagedAt(position: number): SpillwayError {
  return damaged(`the record at position ${position}`)
}
