import type { Consumer } from '@nats-io/jetstream'
import type { Msg, Subscription } from '@nats-io/nats-core'
import { numberAt } from './digits.ts'
import type { Engine } from './engine.ts'
import { newInbox } from './inbox.ts'
import { RawHeaders } from './raw-headers.ts'

/** A message of a stream as a consumer delivers it. */
export interface DeliveredMessage {
  readonly seq: number
  readonly subject: string
  readonly headers: RawHeaders
  readonly data: Uint8Array
}

/** What was made of a message. */
export interface Delivered<T> {
  readonly seq: number
  readonly content: T
  /** How many messages of the stream follow it, when it was sent. */
  readonly pending: number
}

export interface StretchOptions {
  /** The sequence to read from. */
  readonly from: number
  /** How many messages are asked for ahead where they are read on. */
  readonly ahead: number
  /** Bytes that the answer to one request may have; a message that is larger comes alone. Default: no limit. */
  readonly mostBytes?: number
  /** Default true. */
  readonly hasData?: boolean
}

/** Milliseconds that the engine may take for what was asked for. */
const expiresMs = 2000
/** How long it is waited beyond that. */
const graceMs = 1000
const nanosPerMs = 1_000_000
/** How often a new consumer is asked again where nobody answers, and after how many milliseconds at first. */
const mostRepeats = 6
const pauseMs = 10
// [JetStream, status codes of pull requests]
const noMessages = 404
const timedOut = 408
const ended = 409
const nobody = 503
/** What it says where the next message would be one too many for the bytes that were asked for, and once it sent all that was asked for. */
const tooManyBytes = 'Message Size Exceeds MaxBytes'
const completed = 'Batch Completed'

/**
 * A stretch of a stream, read from one sequence on, over one consumer and one subscription. Who takes a second part of it is
 * taken to read on: then as much is asked for ahead, so that it is on its way while the part before is used.
 *
 * The consumer counts what it delivers: a message that was lost on its way ends the stretch with an error, and no message
 * is left out. What it says is read as it comes: messages that wait with all their headers keep the collector busy.
 */
export class Stretch<T> {
  /** The sequence to read on from. */
  next: number
  readonly #engine: Engine
  readonly #consumer: Consumer
  readonly #inbox: string
  readonly #subscription: Subscription
  readonly #request: string
  readonly #read: (message: DeliveredMessage) => T
  readonly #ahead: number
  readonly #mostBytes: number | undefined
  /** Where the numbers begin in the reply subjects of this consumer. */
  #numbersAt = 0
  #arrived: Delivered<T>[] = []
  /** Messages that were asked for and have not come. */
  #asked = 0
  #delivered = 0
  #taken = 0
  #repeats = 0
  #isClosed = false
  #failure: Error | undefined
  #wake: () => void = ignore

  private constructor(
    engine: Engine,
    consumer: Consumer,
    name: string,
    { from, ahead, mostBytes }: StretchOptions,
    read: (message: DeliveredMessage) => T,
  ) {
    const { connection, stream, js } = engine
    this.next = from
    this.#engine = engine
    this.#consumer = consumer
    this.#read = read
    this.#ahead = ahead
    this.#mostBytes = mostBytes
    this.#inbox = newInbox(connection)
    this.#request = `${js.apiPrefix}.CONSUMER.MSG.NEXT.${stream}.${name}`
    this.#subscription = connection.subscribe(this.#inbox, {
      callback: (error, message) => {
        if (error) this.#failure = error
        else this.#hear(message)
        this.#wake()
      },
    })
  }

  /** `undefined`: there is nothing to be read there. */
  static async begin<T>(
    engine: Engine,
    options: StretchOptions,
    read: (message: DeliveredMessage) => T,
  ): Promise<Stretch<T> | undefined> {
    const { from, hasData = true } = options
    const consumer = await engine.consumer(from, hasData ? {} : { headers_only: true })
    // As it was when it was made.
    const { name, num_pending: pending } = await consumer.info(true)
    if (pending > 0) return new Stretch(engine, consumer, name, options, read)
    consumer.delete().catch(ignore)
    return undefined
  }

  /**
   * The next `count` messages, or fewer: up to sequence `end`, or the first one beyond if there is none up to it, or to the end
   * of the stream. Rejects where the consumer is gone.
   */
  async take(count: number, end: number): Promise<readonly Delivered<T>[]> {
    this.#ask(count - this.#arrived.length - this.#asked)
    const deadline = performance.now() + expiresMs + graceMs
    while (!this.#has(count, end)) {
      if (this.#failure) throw this.#failure
      await this.#more(deadline - performance.now())
    }
    const beyond = this.#arrived.findIndex(({ seq }, at) => at > 0 && seq > end)
    const messages = this.#arrived.splice(0, beyond > 0 ? Math.min(beyond, count) : count)
    const last = messages.at(-1)
    if (last) this.next = last.seq + 1
    if (this.#taken++ > 0) this.#askAhead(Math.min(Math.max(count, this.#ahead), last?.pending ?? 0))
    return messages
  }

  /** Half of it at a time, for each request costs as much as many messages. */
  #askAhead(count: number): void {
    const coming = this.#arrived.length + this.#asked
    if (coming <= count / 2) this.#ask(count - coming)
  }

  close(): void {
    this.#isClosed = true
    if (this.#engine.connection.isClosed()) return
    this.#subscription.unsubscribe()
    this.#consumer.delete().catch(ignore)
  }

  #has(count: number, end: number): boolean {
    const last = this.#arrived.at(-1)
    if (this.#arrived.length >= count || this.#asked === 0) return true
    return last !== undefined && (last.seq >= end || last.pending === 0)
  }

  #ask(count: number): void {
    if (count <= 0) return
    this.#asked += count
    this.#send(count)
  }

  #send(count: number, mostBytes: number | undefined = this.#mostBytes): void {
    if (this.#isClosed || this.#engine.connection.isClosed()) return
    const request = JSON.stringify({ batch: count, max_bytes: mostBytes, expires: expiresMs * nanosPerMs })
    this.#engine.connection.publish(this.#request, request, { reply: this.#inbox })
  }

  #hear(message: Msg): void {
    if (message.subject === this.#inbox) {
      this.#heed(message)
      return
    }
    const { subject, data, reply = '' } = message
    this.#numbersAt ||= numbersAt(reply)
    const seqAt = reply.indexOf('.', this.#numbersAt) + 1
    const deliveredAt = reply.indexOf('.', seqAt) + 1
    const timeAt = reply.indexOf('.', deliveredAt) + 1
    const pendingAt = reply.indexOf('.', timeAt) + 1
    this.#asked--
    if (numberAt(reply, deliveredAt) !== ++this.#delivered) this.#failure ??= new Error('a message was lost on its way')
    if (this.#failure) return
    const seq = numberAt(reply, seqAt)
    const content = this.#read({ seq, subject, headers: new RawHeaders(message), data })
    this.#arrived.push({ seq, pending: numberAt(reply, pendingAt), content })
  }

  /** What the engine says of a request. */
  #heed({ headers }: Msg): void {
    const code = headers?.code ?? 0
    if (code === noMessages || code === timedOut) {
      // Of one that does not say how much of it was not sent, nothing more comes.
      const unsent = Number(headers?.get('Nats-Pending-Messages') || this.#asked)
      this.#asked = Math.max(0, this.#asked - unsent)
      return
    }
    if (code === ended && headers?.description === completed) return
    if (code === ended && headers?.description === tooManyBytes) {
      this.#asked -= Number(headers.get('Nats-Pending-Messages'))
      if (this.#asked > 0 || this.#arrived.length > 0) return
      this.#asked = 1
      this.#send(1, 0)
      return
    }
    if (code === nobody && this.#delivered === 0 && this.#repeats < mostRepeats) {
      // A new consumer may not be known at once to the node that is asked. Another one would only be one more.
      setTimeout(() => this.#send(this.#asked), pauseMs * 2 ** this.#repeats++)
      return
    }
    if (code >= 400) this.#failure = new Error(`the consumer cannot be read: ${code} ${headers?.description}`)
  }

  #more(ms: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`the consumer sent nothing for ${expiresMs + graceMs} ms`)), ms)
      this.#wake = () => {
        clearTimeout(timer)
        this.#wake = ignore
        resolve()
      }
    })
  }
}

/**
 * [JetStream, reply subject of a message] $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<times that it was delivered>.<stream
 * sequence>.<consumer sequence>.<time>.<pending>
 */
function numbersAt(reply: string): number {
  const parts = reply.split('.')
  const names = parts.slice(0, parts.length === 9 ? 4 : 6)
  return names.join('.').length + 1
}

function ignore(): void {}
