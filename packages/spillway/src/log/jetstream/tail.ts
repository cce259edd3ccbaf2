import { type ConsumerMessages, DeliverPolicy, type JsMsg } from '@nats-io/jetstream'
import type { Engine } from './engine.ts'
import { RawHeaders } from './raw-headers.ts'
import type { StreamRecord } from './record.ts'

export interface TailListener {
  /** A record, each once, in the order of the stream. */
  record(record: StreamRecord): void
  /** Records before the next one were gone before they could be read. */
  skipped(): void
  /** The records up to this sequence were gone before they could be read, and there is no next one. */
  gone(upTo: number): void
}

const retryMs = 100
/**
 * Messages that the engine may send ahead, or bytes once there was a large message: it cuts a connection for which more than
 * 64 MiB wait. The client takes only one of the two bounds, and to bound bytes it asks anew for every few messages.
 */
const mostAhead = 500
const mostBytes = 16 * 2 ** 20
/** How often the engine gives a sign while it has nothing to send, in milliseconds. */
const heartbeat = 1000
/** How long none may come before the consumer is made anew: one whose node is gone waits for it for ever. */
const silence = 3 * heartbeat

/**
 * Follows a stream from a sequence on. The engine's ordered consumer starts again by itself after losses, and then begins
 * without a word with the first message that is still there: so every sequence is compared with the one that must come.
 */
export class Tail {
  /** Up to where it has read. */
  seq: number
  readonly #engine: Engine
  readonly #listener: TailListener
  #messages: ConsumerMessages | undefined
  #waiting: { readonly seq: number; resolve(): void }[] = []
  #isClosed = false
  #hadLarge = false
  #isHeld = false
  #held: JsMsg[] = []
  #movedAt = performance.now()
  #heardAt = performance.now()
  readonly #watch: ReturnType<typeof setInterval>
  readonly #done: Promise<void>

  constructor(engine: Engine, after: number, listener: TailListener) {
    this.#engine = engine
    this.seq = after
    this.#listener = listener
    this.#watch = setInterval(() => {
      if (performance.now() - this.#heardAt > silence) this.#startAnew()
    }, heartbeat)
    this.#watch.unref?.()
    this.#done = this.#run()
  }

  /** Takes records that somebody else knows to be next, before the consumer brings them. */
  take(record: StreamRecord): void {
    if (record.seq !== this.seq + 1) return
    this.seq = record.seq
    this.#movedAt = performance.now()
    this.#listener.record(record)
    this.#wake()
  }

  /**
   * Messages are stored whose answers are on their way: what seems to be missing may be among them, and gone from the stream
   * already.
   */
  hold(): void {
    this.#isHeld = true
  }

  release(): void {
    this.#isHeld = false
    for (const message of this.#held.splice(0)) this.#hear(message)
  }

  /** Resolves once it has read up to `seq`, or is closed. */
  async reached(seq: number): Promise<void> {
    if (this.seq >= seq || this.#isClosed) return
    await new Promise<void>((resolve) => this.#waiting.push({ seq, resolve }))
  }

  /** Told where the stream ends: what does not come though it is there is asked for anew, and what is not there is passed over. */
  async check(last: number): Promise<void> {
    if (last <= this.seq) this.#movedAt = performance.now()
    if (performance.now() - this.#movedAt <= silence) return
    const next = await this.#engine.next('*', this.seq + 1)
    if (next) return this.#startAnew()
    if (last <= this.seq || this.#isHeld || this.#isClosed) return
    this.seq = last
    this.#listener.gone(last)
    this.#wake()
  }

  async close(): Promise<void> {
    this.#isClosed = true
    clearInterval(this.#watch)
    this.#messages?.stop()
    for (const { resolve } of this.#waiting.splice(0)) resolve()
    await this.#done
  }

  async #run(): Promise<void> {
    while (!this.#isClosed) {
      try {
        await this.#consume()
      } catch {
        // Asked for again, for as long as the log is open: whoever waits has a patience of its own.
      }
      if (!this.#isClosed) await new Promise((resolve) => setTimeout(resolve, retryMs))
    }
  }

  async #consume(): Promise<void> {
    const { js, stream } = this.#engine
    const consumer = await js.consumers.get(stream, {
      deliver_policy: DeliverPolicy.StartSequence,
      opt_start_seq: this.seq + 1,
    })
    if (this.#isClosed) return
    this.#heardAt = performance.now()
    const messages = await consumer.consume({
      ...(this.#hadLarge ? { max_bytes: mostBytes } : { max_messages: mostAhead }),
      expires: 10 * heartbeat,
      idle_heartbeat: heartbeat,
      abort_on_missing_resource: true,
      callback: (message) => this.#hear(message),
    })
    this.#messages = messages
    if (this.#isClosed) messages.stop()
    void this.#listen(messages)
    try {
      await messages.closed()
    } finally {
      this.#messages = undefined
      consumer.delete().catch(ignore)
    }
  }

  async #listen(messages: ConsumerMessages): Promise<void> {
    for await (const { type } of messages.status()) if (type === 'heartbeat') this.#heardAt = performance.now()
  }

  #startAnew(): void {
    this.#movedAt = performance.now()
    this.#heardAt = performance.now()
    this.#messages?.stop()
  }

  #hear(message: JsMsg): void {
    this.#heardAt = performance.now()
    // One whose record was taken already, or that an earlier consumer has sent.
    if (this.#isClosed || message.seq <= this.seq) return
    if (message.seq > this.seq + 1) {
      if (this.#isHeld) {
        this.#held.push(message)
        return
      }
      this.seq = message.seq - 1
      this.#listener.skipped()
    }
    const { seq, subject, data } = message
    if (!this.#hadLarge && data.length > mostBytes / mostAhead) {
      this.#hadLarge = true
      this.#startAnew()
    }
    const record = this.#engine.record({ seq, subject, data, headers: new RawHeaders(message) })
    if (record) this.take(record)
    else {
      this.seq = message.seq
      this.#wake()
    }
  }

  #wake(): void {
    if (this.#waiting.length === 0) return
    const ready = this.#waiting.filter(({ seq }) => seq <= this.seq)
    if (ready.length === 0) return
    this.#waiting = this.#waiting.filter(({ seq }) => seq > this.seq)
    for (const { resolve } of ready) resolve()
  }
}

function ignore(): void {}
