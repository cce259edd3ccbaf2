import type { SpillwayError } from '../../core/errors.ts'

/** Where the bytes of a stream go: a connection, as its mount presents it. */
export interface Sink {
  /** Sends a piece. `false`: it holds as much as it should; no more turns until the stream is told `drained`. */
  write(piece: Piece): boolean
  /** Whether bytes wait that the peer has not taken. */
  isWaiting(): boolean
  /** A number that grows when the peer takes bytes. */
  taken(): number
  /** Ends the stream cleanly, after what was written. `error`: why, which the stream has said itself. */
  end(error: SpillwayError): void
  /** Cuts the connection: the peer takes nothing. */
  abort(): void
}

/** Bytes of a body that many connections send. */
export class Piece {
  #bytes: Uint8Array
  #framed: Uint8Array | undefined

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get bytes(): Uint8Array {
    return this.#bytes
  }

  /**
   * The bytes in the frame that a kind of connection puts around them, made by the first one for all of its kind.
   * `frame` says where in the framed bytes they begin: they are kept once.
   */
  framed(frame: (bytes: Uint8Array) => { framed: Uint8Array; start: number }): Uint8Array {
    if (this.#framed) return this.#framed
    const { framed, start } = frame(this.#bytes)
    this.#bytes = framed.subarray(start, start + this.#bytes.length)
    this.#framed = framed
    return framed
  }
}

/** Several pieces as one. A single one stays itself, so that what is made of it is still shared. */
export function joined(pieces: readonly Piece[]): Piece {
  if (pieces.length === 1) return pieces[0] as Piece
  const bytes = new Uint8Array(pieces.reduce((size, piece) => size + piece.bytes.length, 0))
  let at = 0
  for (const piece of pieces) {
    bytes.set(piece.bytes, at)
    at += piece.bytes.length
  }
  return new Piece(bytes)
}

/** Pieces for as few writes as can be without a copy of a `large` one: one connection that stalls must not hold its own. */
export function packed(pieces: readonly Piece[], large: number): Piece[] {
  const writes: Piece[] = []
  let small: Piece[] = []
  for (const piece of pieces) {
    if (piece.bytes.length < large) {
      small.push(piece)
      continue
    }
    if (small.length > 0) writes.push(joined(small))
    small = []
    writes.push(piece)
  }
  if (small.length > 0) writes.push(joined(small))
  return writes
}
