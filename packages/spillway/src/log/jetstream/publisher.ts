import {
  ClosedConnectionError,
  type Msg,
  type MsgHdrs,
  type NatsConnection,
  NoRespondersError,
  type Subscription,
  TimeoutError,
} from '@nats-io/nats-core'
import { newInbox } from './inbox.ts'

interface Pending {
  readonly subject: string
  readonly deadline: number
  resolve(answer: Msg): void
  reject(error: Error): void
}

const noResponders = 503

/**
 * Publishes messages and gives their answers, all over one inbox and one timer. A request of the client has a timer, a stack
 * trace and several promises of its own, which take as much time as all else that an append does.
 */
export class Publisher {
  readonly #connection: NatsConnection
  readonly #timeout: number
  #inbox = ''
  #subscription: Subscription | undefined
  /** By number, oldest first. */
  readonly #pending = new Map<number, Pending>()
  #count = 0
  #timer: ReturnType<typeof setTimeout> | undefined
  #isWatching = false
  #isClosed = false

  /** Waits `timeout` milliseconds for each answer. */
  constructor(connection: NatsConnection, timeout: number) {
    this.#connection = connection
    this.#timeout = timeout
  }

  /** Rejects if no answer comes in time, with what the server refuses, or if nobody takes this subject. */
  request(subject: string, data: Uint8Array, headers: MsgHdrs): Promise<Msg> {
    return new Promise((resolve, reject) => {
      const number = ++this.#count
      this.#subscribe()
      this.#connection.publish(subject, data, { reply: this.#inbox + number, headers })
      this.#pending.set(number, { subject, deadline: performance.now() + this.#timeout, resolve, reject })
      this.#timer ??= this.#expireLater(this.#timeout)
    })
  }

  close(): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
    if (this.#subscription && !this.#connection.isClosed()) this.#subscription.unsubscribe()
    this.#failAll(() => new ClosedConnectionError())
  }

  #subscribe(): void {
    if (this.#subscription && !this.#subscription.isClosed()) return
    if (!this.#isWatching) void this.#watch()
    this.#inbox = `${newInbox(this.#connection)}.`
    this.#subscription = this.#connection.subscribe(`${this.#inbox}*`, {
      callback: (error, answer) => {
        if (error) this.#failAll(() => error)
        else this.#hear(answer)
      },
    })
  }

  #hear(answer: Msg): void {
    const number = Number(answer.subject.slice(this.#inbox.length))
    const pending = this.#pending.get(number)
    if (!pending) return
    this.#pending.delete(number)
    const isNobody = answer.data.length === 0 && answer.headers?.code === noResponders
    if (isNobody) pending.reject(new NoRespondersError(pending.subject))
    else pending.resolve(answer)
  }

  /** What the server says of a subject that may not be published to names no request. */
  async #watch(): Promise<void> {
    this.#isWatching = true
    this.#connection.closed().then(() => this.#failAll(() => new ClosedConnectionError()))
    for await (const status of this.#connection.status()) {
      if (this.#isClosed) return
      if (status.type !== 'error') continue
      const { operation, subject } = status.error as { readonly operation?: string; readonly subject?: string }
      if (operation === 'publish') this.#failAll(() => status.error, subject)
    }
  }

  #failAll(error: () => Error, subject?: string): void {
    for (const [number, pending] of this.#pending) {
      if (subject !== undefined && pending.subject !== subject) continue
      this.#pending.delete(number)
      pending.reject(error())
    }
  }

  #expireLater(ms: number): ReturnType<typeof setTimeout> {
    const timer = setTimeout(() => this.#expire(), ms)
    // The connection keeps the process alive while an answer can come.
    timer.unref?.()
    return timer
  }

  #expire(): void {
    this.#timer = undefined
    const now = performance.now()
    for (const [number, { deadline, reject }] of this.#pending) {
      if (deadline > now) {
        this.#timer = this.#expireLater(deadline - now)
        return
      }
      this.#pending.delete(number)
      reject(new TimeoutError())
    }
  }
}
