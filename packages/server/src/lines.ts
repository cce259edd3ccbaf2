const lineBreak = 0x0a

/** A line had more bytes than were allowed. */
export class LineTooLong extends Error {
  override readonly name = 'LineTooLong'
}

/**
 * Cuts bytes into lines, without their line breaks. It keeps at most `limit` bytes of a line that has not ended:
 * `push` throws `LineTooLong` beyond.
 */
export class LineSplitter {
  readonly #limit: number
  #partial: Uint8Array[] = []
  #size = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  /** The lines that end in `bytes`. Take each before asking for the next: a later one may be too long. */
  *push(bytes: Uint8Array): Generator<Uint8Array> {
    let start = 0
    for (let end = bytes.indexOf(lineBreak); end >= 0; end = bytes.indexOf(lineBreak, start)) {
      this.#keep(bytes.subarray(start, end))
      start = end + 1
      yield this.#take()
    }
    this.#keep(bytes.subarray(start))
  }

  /** What stands after the last line break, if anything. */
  rest(): Uint8Array | undefined {
    return this.#size > 0 ? this.#take() : undefined
  }

  #keep(piece: Uint8Array): void {
    if (this.#size + piece.length > this.#limit) throw new LineTooLong(`A line has more than ${this.#limit} bytes.`)
    if (piece.length === 0) return
    this.#partial.push(piece)
    this.#size += piece.length
  }

  #take(): Uint8Array {
    const line = this.#partial.length === 1 ? (this.#partial[0] as Uint8Array) : Buffer.concat(this.#partial)
    this.#partial = []
    this.#size = 0
    return line
  }
}
