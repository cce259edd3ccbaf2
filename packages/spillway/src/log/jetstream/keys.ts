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
    if (this.#known.size <= keyWindow) return
    for (const oldest of this.#known.keys()) {
      this.#known.delete(oldest)
      return
    }
  }

  async #load(): Promise<void> {
    const earlier = new Map<string, KeyedAppend>()
    const consumer = await this.#engine.consumer(this.#end - keyWindow, { headers_only: true })
    try {
      let { num_pending: pending } = await consumer.info(true)
      for (let isOver = pending === 0; !isOver; ) {
        const messages = await consumer.fetch({ max_messages: Math.min(pending, mostAtOnce), expires: expiresMs })
        isOver = true
        for await (const message of messages) {
          const record = this.#engine.record(message)
          if (record) noteIn(earlier, record)
          pending = message.info.pending
          isOver = pending === 0 || message.seq >= this.#end
          if (isOver) break
        }
      }
    } finally {
      consumer.delete().catch(() => {})
    }
    for (const [key, append] of this.#known) earlier.set(key, append)
    this.#known = earlier
  }
}

function noteIn(known: Map<string, KeyedAppend>, { seq, head, key }: StreamRecord): void {
  // It is stored only behind all others of its append.
  if (key && head.position === head.count) known.set(key.name, { digest: key.digest, start: seq - head.count + 1 })
}
