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

  /** `share`: of the whole, from 0 to 1, where that is known; it is shown as a bar. */
  show(text: string, share?: number): void {
    const now = this.#now()
    if (!this.#stream.isTTY || now - this.#started < firstAfter) return
    if (this.#shownAt !== undefined && now - this.#shownAt < nextAfter) return
    this.#shownAt = now
    const shown = share === undefined ? text : `${bar(share)} ${text}`
    this.#stream.write(`\r\u001b[K${cut(shown, widthOf(this.#stream) - 1)}`)
  }

  /** Takes the line away, if there is one. */
  clear(): void {
    if (this.#shownAt !== undefined) this.#stream.write('\r\u001b[K')
    this.#shownAt = undefined
  }
}

const barLength = 24

function bar(share: number): string {
  const part = Math.min(Math.max(share, 0), 1)
  const full = Math.round(part * barLength)
  return `[${'#'.repeat(full)}${'.'.repeat(barLength - full)}] ${String(Math.floor(part * 100)).padStart(3)}%`
}
