import { bytesOf, decodeBatch } from '../core/batch-text.ts'
import { systemClock } from '../core/clock.ts'
import { SpillwayError, wrongOption } from '../core/errors.ts'
import { type PendingBatch, StoredBatch } from '../core/event.ts'
import { Followers } from '../core/followers.ts'
import type { Appended, AppendOptions, Log, LogNews, LogPage, LogStart, RightsChange } from '../core/log.ts'
import { Pages } from '../core/pages.ts'
import { floorOf, openRing, recordType } from './layout.ts'
import { decodePage, encodePending, type LogCall, type PlainPage, type RightsNote } from './log-calls.ts'
import { Caller, checkPort, type SharedPort } from './port.ts'
import { newestPlace, RingReader } from './reader.ts'
import { host } from './runtime.ts'
import type { SharedLogHandle } from './shared-log.ts'
import { type Span, SpanReader } from './span.ts'
import { Alarm } from './wait.ts'

/**
 * Opens a log that another thread shares: what was published it reads in shared memory, everything else it asks the owner
 * by `port`, which must be the other end of the one that was connected. Give it to a broker. Closing it closes the port,
 * not the log; when the owner closes the log, the brokers of this thread end with `SHUTDOWN`. Throws `CONFIG` that names what is wrong.
 */
export function openSharedLog(handle: SharedLogHandle, port: SharedPort): Log {
  const { epoch, number, changes } = (handle ?? {}) as Partial<SharedLogHandle>
  if (typeof epoch !== 'string' || !Number.isInteger(number) || !Number.isInteger(changes)) {
    throw wrongOption('handle', 'what connect gave', handle)
  }
  checkPort(port)
  return new LogView(handle, port)
}

/** How long records are read before others have their turn, in milliseconds. */
const turnMs = 8
const looksBeforeSleep = 2

class LogView implements Log {
  readonly epoch: string
  readonly #number: number
  readonly #floor: BigInt64Array
  readonly #reader: RingReader
  readonly #alarm: Alarm
  readonly #owner: Caller
  readonly #decoder = new host.TextDecoder('utf-8', { ignoreBOM: true })
  readonly #followers = new Followers()
  readonly #news = new Set<LogNews>()
  readonly #appends = new Set<Promise<unknown>>()
  readonly #pages = new Pages()
  #floorAsked: Promise<unknown> | undefined
  #overruns = 0
  /** The number of the last change of rights that it was told of. */
  #lastChange: number
  #told: number
  #isReading = false
  #idleLooks = 0
  /** The owner has closed the log, or is gone. */
  #isOver = false
  #hasEnded = false
  #closed: Promise<void> | undefined

  constructor({ ring: memory, epoch, number, changes }: SharedLogHandle, port: SharedPort) {
    const ring = openRing(memory)
    this.epoch = epoch
    this.#number = number
    this.#lastChange = changes
    this.#floor = floorOf(memory)
    const place = newestPlace(ring)
    this.#told = place.index
    // A record is looked at before the next span is copied.
    this.#reader = new RingReader(ring, place, new SpanReader(ring, undefined, true))
    this.#alarm = new Alarm(ring.memory, ring.layout, () => this.#look())
    this.#owner = new Caller(port, () => {
      // What waits for an answer gets none any more.
      this.#owner.end(closedError)
      this.#end()
    })
    this.#alarm.set(this.#reader.tail)
  }

  get floor(): number {
    // Batches may get too old while nobody publishes.
    this.#floorAsked ??= this.#owner
      .ask({ name: 'floor' } satisfies LogCall)
      .catch(ignore)
      .finally(() => (this.#floorAsked = undefined))
    return Number(Atomics.load(this.#floor, 0))
  }

  get last(): number {
    // What followers are told of and what this says must be the same.
    this.#readAll(Number.POSITIVE_INFINITY)
    return this.#told
  }

  async append(batches: readonly PendingBatch[], options: AppendOptions = {}): Promise<Appended> {
    if (this.#closed) throw closedError()
    const asked = this.#ask({ name: 'append', batches: encodePending(batches), options })
    this.#appends.add(asked)
    try {
      const appended = (await asked) as Appended
      // The owner had published it before it answered.
      this.#readAll(Number.POSITIVE_INFINITY)
      return appended
    } finally {
      this.#appends.delete(asked)
    }
  }

  read(after: number, limit: number): Promise<LogPage> {
    return this.#pages.share(after, limit, () => this.#readPage(after, limit))
  }

  locate(start: LogStart): Promise<number> {
    return this.#ask({ name: 'locate', start }) as Promise<number>
  }

  follow(listener: (batch: StoredBatch) => void, news?: LogNews): () => void {
    const stop = this.#followers.add(listener, this.#told)
    if (news) this.#news.add(news)
    return () => {
      stop()
      if (news) this.#news.delete(news)
    }
  }

  announce(change: RightsChange): void {
    for (const news of this.#news) news.rights(change)
    // Where the owner has gone there is nobody left to tell.
    this.#ask({ name: 'announce', change }).catch(ignore)
  }

  close(): Promise<void> {
    this.#closed ??= Promise.allSettled(this.#appends).then(() => {
      this.#hasEnded = true
      // Only reads still wait.
      this.#owner.end(closedError, closedError)
    })
    return this.#closed
  }

  #ask(call: LogCall): Promise<unknown> {
    return this.#owner.ask(call)
  }

  async #readPage(after: number, limit: number): Promise<LogPage> {
    return decodePage((await this.#ask({ name: 'read', after, limit })) as PlainPage, this.epoch)
  }

  /**
   * Reads what is new. Before it sleeps it looks twice more, each time after what the last records gave others to do: as long
   * as this thread is busy anyway the publisher need not wake it, which costs him more than a publish.
   */
  #look(): void {
    if (this.#hasEnded) return
    const { position } = this.#reader
    this.#readAll(systemClock.monotonic() + turnMs)
    this.#idleLooks = this.#reader.position === position ? this.#idleLooks + 1 : 0
    if (this.#idleLooks < looksBeforeSleep) systemClock.defer(() => this.#look())
    else this.#alarm.set(this.#reader.tail)
  }

  /** Tells followers of what is new, until `deadline`. */
  #readAll(deadline: number): void {
    // A follower may ask for the newest index.
    if (this.#isReading || this.#hasEnded) return
    this.#isReading = true
    try {
      for (;;) {
        const span = this.#reader.read()
        if (this.#reader.overruns > this.#overruns) this.#missRights()
        if (this.#reader.loss) this.#miss(this.#reader.loss.upTo)
        if (!span) return
        while (this.#reader.position < span.position + span.end) this.#take(span)
        if (systemClock.monotonic() > deadline) return
      }
    } finally {
      this.#isReading = false
    }
  }

  #take(span: Span): void {
    const at = this.#reader.position - span.position
    const type = span.typeAt(at)
    this.#reader.pass(span, at)
    if (type === recordType.batch) this.#tell(this.#batchAt(span, at))
    else if (type === recordType.gap) this.#skip(span.indexAt(at))
    else if (type === recordType.rights) this.#heed(JSON.parse(this.#textAt(span, at)))
    else if (type === recordType.closed) this.#end()
  }

  #tell(batch: StoredBatch): void {
    this.#told = batch.index
    this.#followers.tell([batch])
  }

  #skip(index: number): void {
    this.#told = index
    for (const news of this.#news) news.missed(index)
  }

  #miss(upTo: number): void {
    this.#reader.tell()
    this.#skip(upTo)
  }

  /** What was overwritten may have been a change of rights, which counts for what came after it: all are asked for again. */
  #missRights(): void {
    this.#overruns = this.#reader.overruns
    for (const news of this.#news) news.rights({ subject: undefined, isRevoked: false })
    this.#askRevoked()
  }

  /** Whom `authorize` would still let in, if there is one. */
  #askRevoked(): void {
    const revoked = this.#ask({ name: 'revoked', after: this.#lastChange }) as Promise<string[]>
    revoked.then((subjects) => {
      for (const subject of subjects) for (const news of this.#news) news.rights({ subject, isRevoked: true })
    }, ignore)
  }

  #heed({ number, from, ...change }: RightsNote): void {
    if (change.isRevoked && change.subject === undefined) this.#askRevoked()
    this.#lastChange = number
    if (from === this.#number) return
    for (const news of this.#news) news.rights(change)
  }

  #batchAt(span: Span, at: number): StoredBatch {
    const events = decodeBatch(this.#textAt(span, at))
    const bytes = bytesOf(events, span.payloadAt(at).length)
    return new StoredBatch(this.epoch, span.indexAt(at), { events, bytes })
  }

  #textAt(span: Span, at: number): string {
    return this.#decoder.decode(span.payloadAt(at))
  }

  #end(): void {
    if (this.#isOver) return
    this.#isOver = true
    for (const news of this.#news) news.ended()
    void this.close()
  }
}

function ignore(): void {}

function closedError(): SpillwayError {
  return new SpillwayError('CLOSED', 'The log was closed. The events were not stored.')
}
