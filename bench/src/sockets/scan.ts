import { markerLength } from './event.ts'

type See = (seq: number, publishedAt: number) => void

const tildes = Buffer.from('~~')
const marker = /^~~(\d{10})\.(\d{16})~$/

/** Finds the markers in a stream of bytes, wherever it is cut. */
export class Scanner {
  readonly #see: See
  #carry: Buffer = Buffer.alloc(0)

  constructor(see: See) {
    this.#see = see
  }

  scan(chunk: Buffer): void {
    const bytes = this.#carry.length > 0 ? Buffer.concat([this.#carry, chunk]) : chunk
    let at = bytes.indexOf(tildes)
    while (at >= 0 && at + markerLength <= bytes.length) {
      const match = marker.exec(bytes.toString('latin1', at, at + markerLength))
      if (match) this.#see(Number(match[1]), Number(match[2]))
      at = bytes.indexOf(tildes, match ? at + markerLength : at + 1)
    }
    // A single tilde at the end may be the first of two.
    const rest = at >= 0 ? at : bytes.at(-1) === tildes[0] ? bytes.length - 1 : bytes.length
    this.#carry = Buffer.from(bytes.subarray(rest))
  }
}

/** Takes the framing of a chunked body away. Throws where it breaks the rules or ends. */
export class Dechunker {
  readonly #take: (bytes: Buffer) => void
  readonly #sizeLine = /^([0-9a-f]{1,7})(?:;.*)?\r\n$/i
  #line = ''
  #left = 0
  /** A chunk's bytes are followed by an empty line, which comes before the next size. */
  #isOpen = false

  constructor(take: (bytes: Buffer) => void) {
    this.#take = take
  }

  push(bytes: Buffer): void {
    let at = 0
    while (at < bytes.length) {
      if (this.#left > 0) {
        const end = Math.min(bytes.length, at + this.#left)
        this.#take(bytes.subarray(at, end))
        this.#left -= end - at
        at = end
        continue
      }
      const end = bytes.indexOf(10, at)
      this.#line += bytes.toString('latin1', at, end < 0 ? bytes.length : end + 1)
      if (end < 0) return
      at = end + 1
      this.#takeLine(this.#line)
      this.#line = ''
    }
  }

  #takeLine(line: string): void {
    if (this.#isOpen) {
      if (line !== '\r\n') throw new Error('a chunk is longer than it says')
      this.#isOpen = false
      return
    }
    const size = this.#sizeLine.exec(line)?.[1]
    if (size === undefined) throw new Error(`a chunk's size is ${JSON.stringify(line)}`)
    this.#left = Number.parseInt(size, 16)
    if (this.#left === 0) throw new Error('the response ended')
    this.#isOpen = true
  }
}

/** Times in buckets that are 3 % apart, as many as one likes. */
export class Histogram {
  readonly #buckets = new Map<number, number>()
  count = 0
  max = 0

  add(value: number): void {
    this.count++
    this.max = Math.max(this.max, value)
    const step = 2 ** Math.max(0, Math.floor(Math.log2(Math.max(value, 1))) - 5)
    const bucket = Math.floor(value / step) * step
    this.#buckets.set(bucket, (this.#buckets.get(bucket) ?? 0) + 1)
  }

  /** The value that `share` of all do not exceed. 0 of none. */
  quantile(share: number): number {
    let seen = 0
    for (const [bucket, count] of [...this.#buckets].sort(([a], [b]) => a - b)) {
      seen += count
      if (seen > this.count * share) return bucket
    }
    return this.max
  }
}
