import { keyWindow } from '../../core/log.ts'
import type { Engine } from './engine.ts'
import type { StreamRecord } from './record.ts'
import { Stretch } from './stretch.ts'

/** An append that was made under a key. */
export interface KeyedAppend {
  readonly digest: string
  /** The sequence of its first record. */
  readonly start: number
}

const mostAtOnce = 5000
const mostAttempts = 20
const pauseMs = 50

/**
 * The appends under a key, newest last: at first those among the newest {@link keyWindow} messages that are kept, then those
 * that are read. So what every server knows of keys comes from the stream, and outlives the engine's restarts.
 */
export class Keys {
  readonly #known = new Map<string, KeyedAppend>()

  /** Those up to sequence `end`. Rejects as the engine does. */
  static async read(engine: Engine, end: number): Promise<Keys> {
    const keys = new Keys()
    let from = Math.max(1, end - keyWindow)
    for (let attempt = 0; ; attempt++) {
      // What the leader has: the node that a consumer is on may not have heard of all yet.
      const next = await engine.next('batch', from)
      if (!next || next.seq > end) return keys
      if (attempt === mostAttempts) throw new Error('no node has all that the leader has')
      await new Promise((resolve) => setTimeout(resolve, attempt * pauseMs))
      from = await keys.#read(engine, from, end)
    }
  }

  get(key: string): KeyedAppend | undefined {
    return this.#known.get(key)
  }

  /** Told of the last record of every append. */
  note({ seq, head, key }: StreamRecord): void {
    // It is stored only behind all others of its append.
    if (!key || head.position < head.count) return
    this.#known.delete(key.name)
    this.#known.set(key.name, { digest: key.digest, start: seq - head.count + 1 })
    for (const oldest of this.#known.keys()) {
      if (this.#known.size <= keyWindow) return
      this.#known.delete(oldest)
    }
  }

  /** Notes what there is from sequence `from` to `end`, and gives the sequence to read on from. */
  async #read(engine: Engine, from: number, end: number): Promise<number> {
    const options = { from, ahead: mostAtOnce, hasData: false }
    const stretch = await Stretch.begin(engine, options, (message) => engine.record(message))
    if (!stretch) return from
    try {
      for (;;) {
        const messages = await stretch.take(mostAtOnce, end)
        for (const { content: record } of messages) if (record) this.note(record)
        const last = messages.at(-1)
        if (!last || last.seq >= end || last.pending === 0) return stretch.next
      }
    } finally {
      stretch.close()
    }
  }
}
