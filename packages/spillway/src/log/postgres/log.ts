import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { type Clock, systemClock } from '../../core/clock.ts'
import { SpillwayError } from '../../core/errors.ts'
import type { EventInput, PendingBatch, StoredBatch } from '../../core/event.ts'
import type { Appended, AppendOptions, LogNews, LogPage, LogStart, RightsChange } from '../../core/log.ts'
import { Pages } from '../../core/pages.ts'
import type { PostgresLog } from '../postgres.ts'
import { Ahead } from './ahead.ts'
import { failureOf, isCollision, isGone, type PostgresTransaction, said, within } from './client.ts'
import { Database, type Opened, type Rows, type Standing } from './database.ts'
import { Feed } from './feed.ts'
import { writeInto } from './outbox.ts'
import { Writer } from './writer.ts'

/** How often it is looked whether something was stored or put into the outbox, should a notification get lost. Milliseconds. */
const pollInterval = 1000
/** How often at the most and at least ages are looked at, in milliseconds. */
const shortestRound = 100
const longestRound = 60_000
/** Milliseconds between two tries to read. */
const firstPause = 20
const longestPause = 1000
/** Milliseconds between two tries to announce a change of rights. */
const announcePause = 500

/** See {@link PostgresLog}. */
export class DatabaseLog implements PostgresLog {
  readonly name: string
  readonly schema: string
  readonly epoch: string
  readonly #opened: Opened
  readonly #clock: Clock
  readonly #database: Database
  readonly #feed: Feed
  readonly #writer: Writer
  readonly #writerId: string
  readonly #patience: number
  readonly #pages = new Pages()
  readonly #ahead = new Ahead()
  readonly #timers = new Map<string, () => void>()
  #announcing: Promise<void> = Promise.resolve()
  #listening: Promise<{ unlisten(): PromiseLike<unknown> } | undefined> | undefined
  #isRelaying = false
  #isRelayWanted = false
  #hasEnded = false
  #closed: Promise<void> | undefined

  constructor(opened: Opened, standing: Standing, patience: number) {
    const writer = randomUUID()
    const { names, epoch, clock = systemClock, limits } = opened
    this.name = names.name
    this.schema = names.schema
    this.epoch = epoch
    this.#opened = opened
    this.#clock = clock
    this.#writerId = writer
    this.#patience = patience
    this.#database = new Database(opened, patience)
    const ended = () => this.#end()
    this.#feed = new Feed({ database: this.#database, epoch, writer, patience, ended }, standing)
    const { maxBytes } = limits
    const [database, feed] = [this.#database, this.#feed]
    this.#writer = new Writer({ name: names.name, database, feed, epoch, writer, patience, maxBytes })
    this.#listen()
    this.#repeat('poll', pollInterval, async () => this.#poll())
    if (limits.maxAge < Number.MAX_SAFE_INTEGER) {
      const round = Math.min(Math.max(limits.maxAge / 10, shortestRound), longestRound)
      this.#repeat('trim', round, () => this.#trim())
    }
    // What was committed while no server was there.
    void this.#relay()
  }

  get floor(): number {
    return this.#feed.floor
  }

  get last(): number {
    return this.#feed.told
  }

  async append(batches: readonly PendingBatch[], options: AppendOptions = {}): Promise<Appended> {
    if (this.#closed) throw new SpillwayError('CLOSED', 'The log was closed. The events were not stored.')
    return this.#writer.append(batches, options)
  }

  async read(after: number, limit: number): Promise<LogPage> {
    for (;;) {
      const known = this.last
      const page = await this.#pages.share(after, limit, () => this.#read(after, limit))
      const isEmpty = page.batches.length === 0 && Math.max(page.floor, page.lost ?? 0) <= after
      // One that was being read already may not have what is known by now.
      if (!isEmpty || known <= after) return page
    }
  }

  async locate(start: LogStart): Promise<number> {
    const located = await this.#ask(() => this.#database.locate(start))
    // Others may have stored more than this server has told.
    return Math.min(located, this.last)
  }

  follow(listener: (batch: StoredBatch) => void, news?: LogNews): () => void {
    return this.#feed.follow(listener, news)
  }

  catchUp(): Promise<void> {
    return this.#ask(() => this.#feed.catchUp())
  }

  announce(change: RightsChange): void {
    this.#feed.heed(change)
    if (this.#closed) return
    this.#announcing = this.#announcing.then(() => this.#announce(change))
  }

  async publishIn(tx: PostgresTransaction, events: EventInput | readonly EventInput[]): Promise<void> {
    await writeInto(tx, this.#opened.names, events, this.#opened.limits.maxBytes)
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    for (const stop of this.#timers.values()) stop()
    this.#timers.clear()
    await this.#writer.idle()
    await within(this.#patience, this.#announcing).catch(() => {})
    this.#feed.close()
    // A database that is away must not hold this up.
    this.#listening?.then((listening) => listening?.unlisten()).catch(() => {})
  }

  #end(): void {
    this.#hasEnded = true
    const message = `The history of ${this.#opened.names} that was opened is there no more: it was replaced, or lost batches. Nothing was stored. Open the log again.`
    this.#writer.fail(new SpillwayError('LOG_FAILED', message))
  }

  async #read(after: number, limit: number): Promise<LogPage> {
    const { last, rows } = this.#ahead.take(after, limit) ?? { last: this.last, rows: undefined }
    const page = (await rows) ?? (await this.#ask(() => this.#database.read(after, last, limit)))
    if (page?.epoch !== this.epoch) {
      this.#feed.end()
      throw new SpillwayError('LOG_FAILED', `The history of ${this.#opened.names} was replaced by another one.`)
    }
    if (this.#ahead.follows(after, page.end) && page.end < this.last) {
      const known = this.last
      const next = this.#database.read(page.end, known, limit).catch(() => undefined)
      this.#ahead.put(page.end, limit, { last: known, rows: next })
      // The client sends it at the end of this turn. So the database makes it while this page is made into batches.
      await new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
    }
    return pageOf(page, after, last)
  }

  /** Asks until there is an answer, for as long as `patience` says: to read does no harm when done twice. */
  async #ask<T>(run: () => Promise<T>): Promise<T> {
    const deadline = performance.now() + this.#patience
    for (let pause = firstPause; ; pause = Math.min(2 * pause, longestPause)) {
      if (this.#closed) throw new SpillwayError('CLOSED', 'The log was closed.')
      try {
        return await run()
      } catch (error) {
        if (error instanceof SpillwayError) throw error
        if (isGone(error)) this.#feed.end()
        const isFinal = failureOf(error) === 'refused' && !isCollision(error, this.name)
        if (isFinal || performance.now() > deadline) {
          const message = `${this.#opened.names} could not be read: ${said(error)}.`
          throw new SpillwayError('LOG_FAILED', message, { cause: error })
        }
        await delay(pause)
      }
    }
  }

  #listen(): void {
    const { client, names } = this.#opened
    const listening = Promise.resolve(client.listen(names.channel, this.#notified, this.#poll))
    // Without notifications everything is found by looking, a second later.
    this.#listening = listening.catch(() => (this.#listening = undefined))
  }

  readonly #notified = (payload: string): void => {
    const [last, changes] = payload.split(' ').map(Number)
    // Anybody who may use the database can send one.
    if (Number.isSafeInteger(last) && Number.isSafeInteger(changes)) this.#feed.hint(last as number, changes as number)
    else void this.#relay()
  }

  readonly #poll = (): void => {
    // One after the other: each connection that is opened slows down all appends, which go over all of them in turn.
    void this.#relay().then(() => this.#feed.look())
    if (!this.#listening) this.#listen()
  }

  /** Moves what is in the outbox. What fails is tried again at the next look. */
  async #relay(): Promise<void> {
    this.#isRelayWanted = true
    if (this.#isRelaying) return
    this.#isRelaying = true
    try {
      while (this.#isRelayWanted && !this.#closed && !this.#hasEnded) {
        this.#isRelayWanted = false
        while ((await this.#database.relay()) > 0) this.#feed.look()
      }
    } catch {
      // It is in the outbox.
    }
    this.#isRelaying = false
  }

  async #trim(): Promise<void> {
    const { floor } = await this.#database.trim(this.#writerId)
    this.#feed.trimmed(floor)
  }

  async #announce(change: RightsChange): Promise<void> {
    const deadline = performance.now() + this.#patience
    for (;;) {
      try {
        await this.#database.announce(this.#writerId, change)
        return
      } catch (error) {
        // Whoever does not hear of it reads on: so it is tried for as long as there is a log.
        const isLate = this.#closed !== undefined && performance.now() > deadline
        if (this.#hasEnded || isGone(error) || isLate) return
        if (failureOf(error) === 'refused' && this.#closed) return
        await delay(announcePause, undefined, { ref: this.#closed !== undefined })
      }
    }
  }

  #repeat(name: string, ms: number, run: () => Promise<void>): void {
    const stop = this.#clock.after(ms, async () => {
      // Before the next one: one is enough at a time. What fails here fails for a publisher, who is told.
      await run().catch(() => {})
      if (!this.#closed && !this.#hasEnded) this.#repeat(name, ms, run)
    })
    this.#timers.set(name, stop)
  }
}

/** What a reader after `after` is told, who knows of indexes up to `last`. */
function pageOf({ floor, rows }: Rows, after: number, last: number): LogPage {
  const batches: StoredBatch[] = []
  let lost = 0
  let at = Math.max(after, floor)
  if (rows.length === 0 && last > at) lost = last
  for (const { batch, previous } of rows) {
    // Told at the start of a page of its own.
    if (previous > at && batches.length > 0) break
    if (previous > at) lost = batch.index - 1
    batches.push(batch)
    at = batch.index
  }
  return lost > 0 ? { floor, lost, batches } : { floor, batches }
}
