/** Words between the cells of two readers: processors fetch lines of 64 bytes in pairs. */
const apart = 32
/** Milliseconds that it looks again and again, and then sleeps at a time. */
const looking = 0.02
const sleeping = 0.05

/** How far readers have come, for a writer that is to stay near the slowest. */
export class Pacer {
  readonly cells: Int32Array
  readonly #ahead: number
  readonly #idle = new Int32Array(new SharedArrayBuffer(4))
  readonly #readers: number
  #known = 0

  constructor(readers: number, ahead: number) {
    this.cells = new Int32Array(new SharedArrayBuffer(4 * apart * readers))
    this.#readers = readers
    this.#ahead = ahead
  }

  /** The number of records that the slowest reader has behind it. */
  get slowest(): number {
    let least = Number.POSITIVE_INFINITY
    for (let n = 0; n < this.#readers; n++) least = Math.min(least, Atomics.load(this.cells, n * apart))
    return least
  }

  /** Blocks until record number `n` may be written. */
  wait(n: number): void {
    if (n - this.#known < this.#ahead) return
    this.#known = this.slowest
    const started = performance.now()
    while (n - this.#known >= this.#ahead) {
      if (performance.now() - started > looking) Atomics.wait(this.#idle, 0, 0, sleeping)
      this.#known = this.slowest
    }
  }
}

/** A reader says that `records` are behind it. */
export function report(cells: Int32Array, reader: number, records: number): void {
  Atomics.store(cells, reader * apart, records)
}
