import { type Cursor, parseCursor } from '../core/cursor.ts'
import { lagError, SpillwayError } from '../core/errors.ts'
import type { Batch } from '../core/event.ts'
import type { Signal } from '../core/signal.ts'
import { WaitingSubscription } from '../core/waiting-subscription.ts'
import { asRefusal, type Connection, Refusal } from './connection.ts'
import { type Message, violation } from './parse.ts'
import { host, onReturn } from './runtime.ts'

/** What a subscription is doing about its connection. */
export type Status =
  /** `attempt`: 1 for the first, and again once a connection has been of use. */
  | { readonly state: 'connecting'; readonly attempt: number }
  | { readonly state: 'open'; readonly cursor: string }
  /** It tries again after `ms` milliseconds, or when the network comes back. */
  | { readonly state: 'waiting'; readonly attempt: number; readonly ms: number; readonly error: SpillwayError }
  /** It has ended, and `next` rejects with `error`. */
  | { readonly state: 'closed'; readonly error: unknown }

/** How a {@link RemoteSubscription} gets its connections, and what becomes of it when they fail. */
export interface Route {
  /** Opens a stream after `cursor`; `undefined`: from where the reader asked to start. `onCancel` is given what gives up. */
  connect(cursor: string | undefined, onCancel: (cancel: () => void) => void): Promise<Connection>
  /** Whether the credentials are asked for anew with each attempt, so that a refusal may be mended. */
  readonly hasFreshCredentials: boolean
  readonly onLag: 'fail' | 'skip'
  readonly onStatus: ((status: Status) => void) | undefined
  /** Milliseconds over which the first attempts to come back are spread; doubled with each, up to `longestWait`. */
  readonly firstWait: number
  readonly longestWait: number
  /** From 0 to 1. */
  readonly random: () => number
}

/** A connection that ended sooner than this and brought nothing was of no use: asking again at once would be a flood. */
const usefulAfter = 1000

/**
 * A subscription over the network. It pulls: while nobody waits for a batch nothing is read, so what is new stays with the
 * server. When the connection breaks it asks for what comes after the last message, so each batch arrives once.
 */
export class RemoteSubscription extends WaitingSubscription {
  readonly ready: Promise<void>
  readonly #route: Route
  readonly #stopListening: () => void
  /** Received and not taken yet. */
  #messages: (Message & { kind: 'batch' | 'gap' })[] = []
  #taken = 0
  /** After the last message that was taken. */
  #cursor: string | undefined
  /** After the last message that was received. */
  #received: (Cursor & { readonly cursor: string }) | undefined
  #newest = 0
  #connection: Connection | undefined
  #openedAt = 0
  #hasBrought = false
  #attempt = 0
  #refusals = 0
  #running = false
  /** Whether this connection has said anything. */
  #isOpen = false
  /** Whether somebody has looked for a batch, and there was none. */
  #isPolled = false
  /** Whether any connection has said anything. */
  #isReady = false
  /** Why the connection is over, once all that came before is taken. */
  #lastWord: unknown
  #wakeUp: (() => void) | undefined
  /** Until when the server asked to be left alone. */
  #notBefore = 0
  /** Gives up the connection that is being opened. */
  #cancel: (() => void) | undefined
  #entry: { resolve(): void; reject(reason: unknown): void } | undefined
  #ended = false
  #error: unknown

  /** `start`: the cursor that the reader begins after, where it has one. */
  constructor(route: Route, start: string | undefined, signal: Signal | undefined) {
    super()
    this.#route = route
    this.#cursor = start
    this.#received = start === undefined ? undefined : { ...parseCursor(start), cursor: start }
    this.ready = new Promise((resolve, reject) => {
      this.#entry = { resolve, reject }
    })
    this.ready.catch(() => {})
    const abort = () => this.fail(signal?.reason)
    signal?.addEventListener('abort', abort)
    const stopReturn = onReturn(() => this.wake())
    this.#stopListening = () => {
      signal?.removeEventListener('abort', abort)
      stopReturn()
    }
    this.#run()
  }

  get cursor(): string {
    return (this.#taken < this.#messages.length ? this.#cursor : this.#received?.cursor) ?? ''
  }

  get lag(): number {
    const at = this.cursor
    return at === '' ? 0 : Math.max(0, this.#newest - parseCursor(at).index)
  }

  get closed(): boolean {
    return this.#ended
  }

  take(): Batch | undefined {
    if (this.#ended) throw this.#error
    const message = this.#messages[this.#taken]
    if (!message) {
      // Whoever never waits: what comes next is fetched for the next call.
      this.#isPolled = true
      this.#run()
      return undefined
    }
    if (message.kind === 'gap' && this.#route.onLag === 'fail') {
      const error = lagError(message.gap, message.cursor)
      this.fail(error)
      throw error
    }
    this.#taken++
    this.#cursor = message.cursor
    if (this.#taken === this.#messages.length) {
      this.#messages = []
      this.#taken = 0
    }
    if (message.kind === 'batch') return message.batch
    return { index: message.gap.before - 1, cursor: message.cursor, events: [], gap: message.gap }
  }

  /** Tries again now, if it waits to and the server has not asked for more time. */
  wake(): void {
    if (host.performance.now() >= this.#notBefore) this.#wakeUp?.()
  }

  protected override waitBegan(): void {
    this.#run()
  }

  /** Whether anything is to be read now: for whoever waits, or to learn where it stands. */
  get #wants(): boolean {
    const isAsked = this.waiting !== undefined || this.#isPolled || !this.#isReady
    return isAsked && !this.#ended && this.#taken === this.#messages.length
  }

  async #run(): Promise<void> {
    if (this.#running) return
    this.#running = true
    while (this.#wants) {
      try {
        await this.#readOnce()
      } catch (error) {
        if (!this.#ended) await this.#recover(error)
      }
    }
    this.#running = false
  }

  async #readOnce(): Promise<void> {
    const word = this.#lastWord
    if (word) throw word
    if (!this.#connection) {
      this.#tell({ state: 'connecting', attempt: this.#attempt + 1 })
      if (this.#ended) return
      const connection = await this.#route.connect(this.#isReady ? this.#received?.cursor : undefined, (cancel) => {
        this.#cancel = cancel
      })
      this.#cancel = undefined
      if (this.#ended) {
        connection.close()
        return
      }
      this.#connection = connection
      this.#openedAt = host.performance.now()
    }
    const messages = await this.#connection.read()
    if (this.#ended) return
    try {
      if (!messages) throw new SpillwayError('UNREACHABLE', 'The connection ended.')
      for (const message of messages) this.#receive(message)
    } catch (error) {
      // What came before it counts.
      this.#lastWord = error
    }
    if (this.waiting && this.#messages.length > 0) this.deliver()
  }

  #receive(message: Message): void {
    if (message.kind === 'closed') throw new Refusal(message.error, message.retry)
    const { at, cursor } = message
    const before = this.#received
    const isLoss = message.kind === 'gap'
    const isReset = isLoss && message.gap.reason === 'epoch'
    if (before && before.epoch !== at.epoch && !isReset) {
      throw violation(`history ${at.epoch} follows ${before.epoch} without a reset`)
    }
    if (message.kind === 'position') {
      // On coming back the server may stand before a loss that it tells next: only what was told counts.
      if (!before || at.index > before.index) this.#received = { ...at, cursor }
      this.#newest = Math.max(this.#newest, at.index, message.newest)
    } else {
      // Only a history that was cut short goes on below what this reader has seen.
      const isCut = isLoss && message.gap.reason === 'truncated' && at.index < (before?.index ?? 0)
      if (before && before.epoch === at.epoch && at.index <= before.index && !isCut) return
      if (this.#messages.length === this.#taken) this.#cursor = before?.cursor
      this.#messages.push(message)
      this.#isPolled = false
      this.#received = { ...at, cursor }
      this.#newest = isReset || isCut ? at.index : Math.max(this.#newest, at.index)
      this.#hasBrought = true
    }
    if (!this.#isOpen) this.#open(cursor)
  }

  #open(cursor: string): void {
    this.#isOpen = true
    this.#isReady = true
    this.#connection?.opened()
    this.#entry?.resolve()
    this.#entry = undefined
    this.#tell({ state: 'open', cursor })
  }

  /** Waits until it may try again, or ends the subscription. */
  async #recover(cause: unknown): Promise<void> {
    const wasUseful = this.#isOpen && (this.#hasBrought || host.performance.now() - this.#openedAt >= usefulAfter)
    this.#connection?.close()
    this.#connection = undefined
    this.#lastWord = undefined
    this.#isOpen = false
    this.#hasBrought = false
    if (wasUseful) {
      this.#attempt = 0
      this.#refusals = 0
    }
    const { error, retryAfter = 0 } = asRefusal(cause)
    // Credentials may have been old: once, they are asked for again.
    const isStale = ['UNAUTHORIZED', 'EXPIRED', 'REVOKED'].includes(error.code)
    const isFreshAttempt = isStale && this.#route.hasFreshCredentials && this.#refusals++ === 0
    if (!error.retryable && !isFreshAttempt) {
      this.fail(error)
      return
    }
    const isAtOnce = isFreshAttempt || (error.code === 'RENEW' && wasUseful)
    const { firstWait, longestWait, random } = this.#route
    const backoff = random() * Math.min(firstWait * 2 ** this.#attempt, longestWait)
    const ms = isAtOnce ? 0 : retryAfter + backoff
    this.#notBefore = isAtOnce ? 0 : host.performance.now() + retryAfter
    this.#attempt++
    this.#tell({ state: 'waiting', attempt: this.#attempt, ms, error })
    if (!this.#ended) await this.#wait(ms)
  }

  #wait(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = host.setTimeout(() => this.#wakeUp?.(), ms)
      this.#wakeUp = () => {
        host.clearTimeout(timer)
        this.#wakeUp = undefined
        resolve()
      }
    })
  }

  /** Ends the subscription, at once. */
  fail(error: unknown): void {
    if (this.#ended) return
    const { cursor } = this
    this.#messages = []
    this.#taken = 0
    this.#received = cursor === '' ? undefined : { ...parseCursor(cursor), cursor }
    this.#ended = true
    this.#error = error
    this.#cancel?.()
    this.#connection?.close()
    this.#connection = undefined
    this.#stopListening()
    this.#wakeUp?.()
    this.#entry?.reject(error)
    this.#entry = undefined
    this.rejectWait(error)
    this.#tell({ state: 'closed', error })
  }

  #tell(status: Status): void {
    try {
      this.#route.onStatus?.(status)
    } catch (error) {
      // The reader's own listener failed: that is the end of this reader.
      this.fail(error)
    }
  }
}
