import type { StreamRecord } from './record.ts'

/** How many windows of messages are looked back, and how long, in milliseconds. */
const mostWindows = 24
const recentMs = 1000
/** Of those, how many a writer must have for others to leave it time. */
const fewestWindows = 3
/** How far apart they may stand at the most for turns to be taken, in times that one takes. */
const farApart = 2
/** Bounds of the time that is left to a writer to begin, in milliseconds. */
const shortestSlot = 2
const longestSlot = 50
/** How many such times the rest of a window may take to come, and for how many one waits at the most. */
const restSlots = 4
const mostSlots = 20

interface Window {
  readonly writer: string
  /** When its last message was read. */
  readonly at: number
}

/**
 * Whose turn it is to append, among servers that append to one stream at the same time. What one of them sends in the middle
 * of what another sends is refused, and has cost the engine as much as what is stored. So they go round in the order of their
 * names, as each can tell from what it reads: whoever is next behind the writer of the newest window begins at once, and the
 * others leave it some time to do so. That orders nothing, and a wrong guess does no harm: conditions decide what is stored.
 *
 * Where windows stand far apart nobody waits: they seldom meet.
 */
export class Turns {
  readonly #own: string
  readonly #now: () => number
  #newest: StreamRecord | undefined
  #readAt = 0
  #windows: Window[] = []
  /** What a window takes, in milliseconds. */
  #length = 1
  #wake: () => void = ignore

  constructor(own: string, now: () => number = () => performance.now()) {
    this.#own = own
    this.#now = now
  }

  /** Told of every record that is read. */
  note(record: StreamRecord): void {
    this.#newest = record
    this.#readAt = this.#now()
    if (record.head.left > 0) return
    this.#windows.push({ writer: writerOf(record), at: this.#readAt })
    if (this.#windows.length > mostWindows) this.#windows.shift()
    this.#wake()
  }

  /** Told how long a window of this writer took, in milliseconds. */
  took(ms: number): void {
    this.#length += (ms - this.#length) / 8
  }

  /** Resolves when it is this writer's turn, or was not for long. */
  async come(): Promise<void> {
    const latest = this.#now() + mostSlots * this.#slot
    for (;;) {
      const now = this.#now()
      const ms = Math.min(this.dueIn(now), latest - now)
      if (ms <= 0) return
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      this.#wake = ignore
    }
  }

  /** Milliseconds until it is this writer's turn, should nobody else begin. */
  dueIn(now: number): number {
    const newest = this.#newest
    if (!newest) return 0
    const ring = this.#ring(writerOf(newest), now)
    if (ring.length === 1) return 0
    const ahead = (ring.indexOf(this.#own) - ring.indexOf(writerOf(newest)) - 1 + ring.length) % ring.length
    const rest = newest.head.left > 0 && writerOf(newest) !== this.#own ? restSlots : 0
    return Math.max(0, this.#readAt + (ahead + rest) * this.#slot - now)
  }

  get #slot(): number {
    return Math.min(longestSlot, Math.max(shortestSlot, this.#length))
  }

  /** Who takes turns, in their order: nobody but this writer, unless the stream is busy. */
  #ring(newest: string, now: number): string[] {
    const windows = this.#windows.filter(({ at }) => at > now - recentMs)
    this.#windows = windows
    const [oldest] = windows
    const isBusy = oldest && now - oldest.at < windows.length * farApart * this.#length
    if (!isBusy) return [this.#own]
    const counts = new Map<string, number>()
    for (const { writer } of windows) counts.set(writer, (counts.get(writer) ?? 0) + 1)
    const often = [...counts].filter(([, count]) => count >= fewestWindows).map(([writer]) => writer)
    if (often.every((writer) => writer === this.#own)) return [this.#own]
    return [...new Set([...often, newest, this.#own])].sort()
  }
}

function writerOf({ head: { append } }: StreamRecord): string {
  return append.slice(0, append.indexOf('.'))
}

function ignore(): void {}
