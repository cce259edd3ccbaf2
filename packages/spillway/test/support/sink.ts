import assert from 'node:assert/strict'
import type { Piece, Sink } from '../../src/http/fan-out/sink.ts'

/** A sink whose peer takes bytes, or does not. */
export class ManualSink implements Sink {
  readonly writes: Uint8Array[] = []
  /** Whether the peer takes what is written. */
  takes = true
  state: 'open' | 'ended' | 'aborted' = 'open'
  /** It told `false` and was not drained since. */
  isFull = false
  /** The turn in which it told `false` is over: a turn may have more than one write. */
  #isShut = false
  #waiting = 0
  #taken = 0

  write({ bytes }: Piece): boolean {
    assert.equal(this.state, 'open', 'nothing is written after the end')
    assert.ok(!this.#isShut, 'nothing is written to a sink that is full')
    assert.ok(bytes.length > 0, 'no write is empty')
    this.writes.push(bytes)
    if (this.takes) this.#taken += bytes.length
    else this.#waiting += bytes.length
    if (!this.takes) this.#fill()
    return this.takes
  }

  isWaiting(): boolean {
    return this.#waiting > 0
  }

  taken(): number {
    return this.#taken
  }

  /** The peer takes some of what waits. */
  take(bytes: number): void {
    this.#taken += bytes
    this.#waiting -= bytes
  }

  /** The peer takes all that waits. Tell the stream. */
  drain(): void {
    this.isFull = false
    this.#isShut = false
    this.take(this.#waiting)
  }

  #fill(): void {
    this.isFull = true
    queueMicrotask(() => {
      this.#isShut = this.isFull
    })
  }

  end(): void {
    this.state = 'ended'
  }

  abort(): void {
    this.state = 'aborted'
  }

  get lines(): string[] {
    return Buffer.concat(this.writes).toString().split('\n').slice(0, -1)
  }

  /** The indexes of the batches that came, in their order. */
  get indexes(): number[] {
    return this.lines.flatMap((line) => (line.startsWith('{"index":') ? [JSON.parse(line).index as number] : []))
  }
}
