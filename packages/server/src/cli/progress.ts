import { cut, widthOf } from '../terminal.ts'

/** As much of standard error as is used. */
interface Terminal {
  readonly isTTY?: boolean
  readonly columns?: number
  write(text: string): unknown
}

/** Milliseconds before the first line, and between two. */
const firstAfter = 1000
const nextAfter = 200

/** One line on a terminal that says how far something has come, once it takes long enough for anybody to wonder. */
export class Progress {
  readonly #stream: Terminal
  readonly #now: () => number
  readonly #started: number
  #shownAt: number | undefined

  constructor(stream: Terminal = process.stderr, now: () => number = () => performance.now()) {
    this.#stream = stream
    this.#now = now
    this.#started = now()
  }

  show(text: string): void {
    const now = this.#now()
    if (!this.#stream.isTTY || now - this.#started < firstAfter) return
    if (this.#shownAt !== undefined && now - this.#shownAt < nextAfter) return
    this.#shownAt = now
    this.#stream.write(`\r\u001b[K${cut(text, widthOf(this.#stream) - 1)}`)
  }

  /** Takes the line away, if there is one. */
  clear(): void {
    if (this.#shownAt !== undefined) this.#stream.write('\r\u001b[K')
    this.#shownAt = undefined
  }
}
