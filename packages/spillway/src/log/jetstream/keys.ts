import { keyWindow } from '../../core/log.ts'
import type { Engine } from './engine.ts'
import type { StreamRecord } from './record.ts'

/** An append that was made under a key. */
export interface KeyedAppend {
  readonly digest: string
  /** The sequence of its first record. */
  readonly start: number
}

const mostAtOnce = 5000
const expiresMs = 5000

/**
 * The appends under a key, newest last: those that were read, and from before that of the newest {@link keyWindow} messages,
 * as far as they are kept. So what every server knows of keys comes from the stream, and outlives the engine's restarts.
 */
export class Keys {
  readonly #engine: Engine
  /** The newest message that was there when the log was opened. */
  readonly #end: number
  #known = new Map<string, KeyedAppend>()
  #loading: Promise<void> | undefined

  constructor(engine: Engine, end: number) {
    this.#engine = engine
    this.#end = end
  }

  get(key: string): KeyedAppend | undefined {
    return this.#known.get(key)
  }

  /** Reads what was there before. Once is enough, unless it rejects. */
  load(): Promise<void> {
    this.#loading ??= this.#load().catch((error: unknown) => {
      this.#loading = undefined
      throw error
    })
    return this.#loading
  }

  /** Told of the last record of every append that was read. */
  note(record: StreamRecord): void {
    noteIn(this.#known, record)
    this.#trim()
  }

  #trim(): void {
    for (const oldest of this.#known.keys()) {
      if (this.#known.size <= keyWindow) return
      this.#known.delete(oldest)
    }
  }

  async #load(): Promise<void> {
    const earlier = new Map<string, KeyedAppend>()
    let read = this.#end - keyWindow - 1
    for (;;) {
      // Only the leader says for sure that there is no more: the node of a consumer may not have heard of all yet.
      const next = await this.#engine.next('batch', read + 1)
      if (!next || next.seq > this.#end) break
      read = await this.#readFrom(next.seq, earlier)
    }
    for (const [key, append] of this.#known) earlier.set(key, append)
    this.#known = earlier
    this.#trim()
  }

  /** Notes what one consumer gives from `start` on, and answers how far that was. Rejects if it was nothing. */
  async #readFrom(start: number, earlier: Map<string, KeyedAppend>): Promise<number> {
    let read = start - 1
    const consumer = await this.#engine.consumer(start, { headers_only: true })
    try {
      for (let isOver = false; !isOver; ) {
        const messages = await consumer.fetch({ max_messages: mostAtOnce, expires: expiresMs })
        isOver = true
        for await (const message of messages) {
          const record = this.#engine.record(message)
          if (record) noteIn(earlier, record)
          read = message.seq
          isOver = message.info.pending === 0 || read >= this.#end
          if (isOver) break
        }
      }
    } finally {
      consumer.delete().catch(() => {})
    }
    if (read < start) throw new Error(`the stream could not be read from ${start} on`)
    return read
  }
}

function noteIn(known: Map<string, KeyedAppend>, { seq, head, key }: StreamRecord): void {
  // It is stored only behind all others of its append.
  if (key && head.position === head.count) known.set(key.name, { digest: key.digest, start: seq - head.count + 1 })
}
