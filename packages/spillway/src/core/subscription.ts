import type { EventBuffer, Position } from './buffer.ts'
import type { Clock } from './clock.ts'
import { formatCursor } from './cursor.ts'
import { lagError, SpillwayError } from './errors.ts'
import type { Batch, Gap, StoredBatch, StoredEvent, StreamEvent } from './event.ts'
import type { Filter, FilterIndex } from './filter.ts'
import type { Log } from './log.ts'
import type { Permit } from './rights.ts'
import type { Signal } from './signal.ts'
import { WaitingSubscription } from './waiting-subscription.ts'

/**
 * A reader of a broker, over whatever lies between. It pulls: what it does not ask for stays in the buffer or the log.
 *
 * Order    Whole batches, reduced to the events it wants, once, in publish order.
 * Loss     Told before the next batch: with `onLag: 'skip'` as a batch with a `gap`, with `'fail'` as the error `LAGGED`.
 * Ending   `close`, the signal, loss of access or the end of the broker end it at once; what it did not take yet is not
 *          lost, since its `cursor` resumes.
 */
export interface Subscription<Event extends StreamEvent = StreamEvent>
  extends AsyncIterable<Batch<Event>>,
    AsyncDisposable {
  /** Resolves when access was granted, rejects with the reason if it was not. */
  readonly ready: Promise<void>
  /** Resumes after everything that this reader took or passed over. Moves on also when nothing matches. */
  readonly cursor: string
  /** How far the newest index is ahead of this reader. 0 once it took or passed over everything. */
  readonly lag: number
  readonly closed: boolean
  /**
   * Waits for the next batch or gap. Ask for one at a time. Rejects with the signal's reason, whatever is ready, or with
   * the `SpillwayError` that ended the subscription: `CLOSED` after `close`.
   */
  next(options?: { signal?: Signal }): Promise<Batch<Event>>
  /** The next batch or gap if there is one now. Throws as `next` rejects. */
  take(): Batch<Event> | undefined
  /** Ends the subscription. Harmless when done twice. */
  close(): void
}

/** What {@link BrokerSubscription.pull} finds: a batch with the events that are wanted of it, or a loss. */
export type Pulled =
  | { readonly batch: StoredBatch; readonly events: readonly StoredEvent[] }
  | { readonly gap: Gap; readonly cursor: string }

/** What the subscriptions of one broker share. */
export interface Source {
  readonly log: Log
  readonly buffer: EventBuffer<StoredBatch>
  readonly clock: Clock
  readonly index: FilterIndex<BrokerSubscription>
  /** Up to where the readers that are level have been told of what they want. */
  readonly dispatched: Readonly<Position>
  /** Called once by each, at its end. */
  ended(subscription: BrokerSubscription): void
}

/** Where a subscription starts. */
export interface Start extends Position {
  /** The history that the reader's cursor belongs to, if it is another one. */
  readonly epoch?: string
  /** Why batches are missing if the log's first page says that some are. Default `lag`. */
  readonly reason?: Gap['reason']
}

/** How many batches a reader older than the buffer takes from the log at once. */
const pageLength = 256
/** How many batches that do not match a reader passes over in one go, so that a narrow filter over a long history does not hold up others. */
const maxScan = 4096
/** Milliseconds for which it does so where its own filter function is asked, which may take much longer than a look at topics. */
const maxCustomMs = 8

/** How long a reader waits before it asks a log again that had nothing, in milliseconds. */
const retryMs = 50

/** Stands before every place of a buffer: the log has what comes next. */
export const beforeBuffer = -1

const none: readonly StoredEvent[] = []

const granted: Promise<void> = Promise.resolve()

const never = Number.POSITIVE_INFINITY

/**
 * A subscription in the broker's own process. Beside the public face it has one without promises, for sockets: `pull`
 * and `onReady`.
 *
 * It reads the log while it is older than the buffer, then the buffer. Once it has read all it is *level*: it needs no
 * look at batches that do not match, since the broker's index tells it of the first that does.
 */
export class BrokerSubscription extends WaitingSubscription {
  /** What it wants, as far as it may read that. */
  filter: Filter
  ready: Promise<void> = granted
  /** Who reads, once that is known. */
  subject: string | undefined
  /** Called when `pull` may find something after it found nothing, or would throw. */
  onReady: (() => void) | undefined
  /** Nothing above this index is delivered while access is being checked. -1: nothing at all. */
  hold: number = never
  /** Unix milliseconds from which on nothing is delivered. */
  expiresAt: number = never

  readonly #source: Source
  readonly #onLag: 'fail' | 'skip'
  /** The history that `#index` belongs to, until a reader from another one has been told. */
  #epoch: string
  #place: number
  #index: number
  /** A loss that is not told yet: until it is, the cursor stays before it. */
  #gap: Gap | undefined
  /** Why batches are missing if the log's next page says that some are. */
  #reason: Gap['reason']
  #level = false
  /** Who reads in its place meanwhile. */
  #stand: { readonly index: number } | undefined
  /** Weak: a reader that stands still must not keep what buffer and log have dropped. */
  #page: WeakRef<readonly StoredBatch[]> | undefined
  #pageAt = 0
  #loading = false
  #resting = false
  /** The log is asked where it starts. */
  #finding = false
  #entry: { resolve(): void; reject(reason: unknown): void } | undefined
  #ended = false
  #error: unknown

  constructor(source: Source, filter: Filter, start: Start, onLag: 'fail' | 'skip') {
    super()
    this.#source = source
    this.filter = filter
    this.#epoch = start.epoch ?? source.log.epoch
    this.#place = start.place
    this.#index = start.gap?.after ?? start.index
    this.#gap = start.gap
    this.#reason = start.reason ?? 'lag'
    this.#onLag = onLag
  }

  get cursor(): string {
    return formatCursor(this.#epoch, this.index)
  }

  /** The index up to which this reader took or passed over everything. */
  get index(): number {
    if (this.#stand) return this.#stand.index
    return this.#level ? Math.max(this.#index, this.#source.dispatched.index) : this.#index
  }

  /** Whether it has read all, and is told of what comes. */
  get isLevel(): boolean {
    return this.#level && this.hold === never
  }

  /** Where it stands in the buffer. */
  get position(): Position {
    const { dispatched } = this.#source
    return { place: this.#level ? Math.max(this.#place, dispatched.place) : this.#place, index: this.index }
  }

  get lag(): number {
    return Math.max(0, this.#source.buffer.newestIndex - this.index)
  }

  get closed(): boolean {
    return this.#ended
  }

  take(): Batch | undefined {
    const pulled = this.pull()
    if (!pulled) return undefined
    if ('gap' in pulled) return { index: pulled.gap.before - 1, cursor: pulled.cursor, events: [], gap: pulled.gap }
    const { batch, events } = pulled
    return events === batch.events ? batch.view : batch.viewOf(events)
  }

  /** The next batch or loss, unparsed. `undefined`: nothing now, `onReady` will be called. Throws the error that ended the subscription. */
  pull(): Pulled | undefined {
    if (!this.#ended && this.expiresAt !== never && this.#source.clock.now() >= this.expiresAt) this.expire()
    if (this.#ended) throw this.#error
    if (this.hold < 0 || this.#finding) return undefined
    const { isCustom } = this.filter
    const startedAt = isCustom ? this.#source.clock.monotonic() : 0
    for (let scanned = 0; scanned < maxScan; scanned++) {
      if (isCustom && this.#source.clock.monotonic() - startedAt > maxCustomMs) break
      if (this.#gap) return this.#tell(this.#gap)
      const batch = this.#peek()
      if (!batch && this.#gap) continue
      if (!batch || batch.index > this.hold) return undefined
      // A reader may know more than this broker's copy of the log does: its own publish was acknowledged already.
      const isKnown = batch.index <= this.#index
      const events = isKnown ? none : this.#select(batch)
      this.#pass(batch)
      if (events.length > 0) return { batch, events }
    }
    this.#rest()
    return undefined
  }

  /** Ends the subscription with `EXPIRED`, and gives back that error. */
  expire(): SpillwayError {
    const error = new SpillwayError('EXPIRED', 'The token of this subscription has expired.', { cursor: this.cursor })
    this.fail(error)
    return error
  }

  /** Delivers nothing and leaves `ready` open until access is granted or the subscription ends. */
  awaitAccess(): void {
    this.hold = -1
    this.ready = new Promise((resolve, reject) => {
      this.#entry = { resolve, reject }
    })
    this.ready.catch(ignore)
  }

  /** Delivers nothing and leaves `ready` open until the log has said where this subscription starts. Call after `awaitAccess`. */
  awaitStart(start: Promise<Start>): void {
    this.#finding = true
    const found = start.then(
      ({ place, index, gap, reason = 'lag' }) => {
        this.#finding = false
        if (this.#ended) return
        this.#place = place
        this.#index = gap?.after ?? index
        this.#gap = gap
        this.#reason = reason
        this.wake()
      },
      (cause: unknown) => {
        const isAnswer = cause instanceof SpillwayError && cause.code === 'NOT_KEPT'
        const error = isAnswer ? cause : this.#readError(cause)
        this.fail(error)
        throw error
      },
    )
    const granted = this.ready
    this.ready = found.then(() => granted)
    this.ready.catch(ignore)
  }

  /** Access was granted or confirmed: the subscription goes on, with what may be read from now on. */
  grant(permit: Permit): void {
    this.filter = this.filter.under(permit)
    this.hold = never
    this.#entry?.resolve()
    this.#entry = undefined
    this.wake()
  }

  /** Ends the subscription with `error`, at once. */
  fail(error: unknown): void {
    if (this.#ended) return
    this.#entry?.reject(error)
    this.#entry = undefined
    this.#settleAt(this.index)
    this.#stand = undefined
    this.#ended = true
    this.#error = error
    this.#page = undefined
    this.#source.ended(this)
    this.rejectWait(error)
    this.onReady?.()
  }

  /** Somebody else reads for it, and knows how far it has come. It costs a publish nothing until it resumes. */
  suspend(stand: { readonly index: number }): void {
    this.#stand = stand
    this.#source.index.delete(this)
  }

  /** Reads on by itself from there. */
  resume({ place, index }: Position): void {
    if (!this.#stand || this.#ended) return
    this.#stand = undefined
    this.#place = place
    this.#settleAt(index)
    this.#source.index.add(this)
  }

  /** Nothing above `index` is delivered until access was confirmed. */
  doubt(index: number): void {
    this.hold = Math.min(this.hold, index)
    this.onReady?.()
  }

  /** Looks again, after access was confirmed. */
  wake(): void {
    if (this.waiting) this.deliver()
    else this.onReady?.()
  }

  /** Told by the broker: a batch that may match stands at `place`, and `index` is that of the batch before it. */
  notify(place: number, index: number): void {
    if (!this.#level || place <= this.#place) return
    this.#place = place - 1
    this.#settleAt(Math.max(this.#index, index))
    this.wake()
  }

  /** Told by the broker: from here on it cannot say what matches, look yourself. */
  unlevel(): void {
    if (!this.#level) return
    this.#place = Math.max(this.#place, this.#source.dispatched.place)
    this.#settleAt(this.index)
    this.wake()
  }

  /** The batch after this reader's position: from the buffer, or from a page of the log where the buffer no longer reaches back. */
  #peek(): StoredBatch | undefined {
    const { buffer, log, dispatched } = this.#source
    if (this.#level) {
      if (dispatched.place >= buffer.lastPlace) return undefined
      this.#place = Math.max(this.#place, dispatched.place)
      this.#settleAt(this.index)
    }
    const paged = this.#page?.deref()?.[this.#pageAt]
    if (paged) return paged
    this.#page = undefined
    if (this.#place + 1 < buffer.firstPlace && this.#index >= buffer.floor) {
      this.#place = buffer.placeAtOrAfter(this.#index + 1) - 1
    }
    if (this.#place + 1 >= buffer.firstPlace) {
      const batch = buffer.at(this.#place + 1)
      this.#level = batch === undefined
      return batch
    }
    if (log.floor < buffer.floor) this.#load()
    else this.#gap = buffer.gapAfter(this.#index, 'lag')
    return undefined
  }

  #pass({ index }: StoredBatch): void {
    this.#index = Math.max(this.#index, index)
    if (this.#page) {
      this.#pageAt++
      return
    }
    this.#place++
    this.#level = this.#place === this.#source.buffer.lastPlace
  }

  #select(batch: StoredBatch): readonly StoredEvent[] {
    try {
      return this.filter.select(batch)
    } catch (error) {
      // The reader's own filter function failed: that is the end of this reader, not of the broker.
      this.fail(error)
      throw error
    }
  }

  /** Freezes the position of a reader that is no longer level. */
  #settleAt(index: number): void {
    this.#index = index
    this.#level = false
  }

  /** Tells a loss and goes on after it, unless that would tell of what came after access was put in doubt. */
  #tell({ after, before, reason }: Gap): Pulled | undefined {
    const { buffer, log } = this.#source
    // More may have gone since the loss was found, unless what comes next is at hand.
    const floor = Math.min(buffer.floor, log.floor)
    const isKept = this.#page?.deref() !== undefined || floor < before
    const oldest = floor < buffer.floor ? floor + 1 : buffer.gapAfter(after, reason).before
    const gap: Gap = { after, before: isKept ? before : oldest, reason }
    if (gap.before - 1 > this.hold) return undefined
    const error = lagError(gap, formatCursor(log.epoch, gap.before - 1))
    if (this.#onLag === 'fail') {
      this.fail(error)
      throw error
    }
    this.#gap = undefined
    this.#epoch = log.epoch
    this.#index = gap.before - 1
    this.#place = this.#index < buffer.floor ? beforeBuffer : buffer.placeAtOrAfter(gap.before) - 1
    return { gap, cursor: this.cursor }
  }

  #load(): void {
    if (this.#loading) return
    this.#loading = true
    this.#readPage().then(
      () => {
        this.#loading = false
        if (!this.#ended) this.wake()
      },
      (cause: unknown) => {
        this.#loading = false
        this.fail(this.#readError(cause))
      },
    )
  }

  #readError(cause: unknown): SpillwayError {
    const code = cause instanceof SpillwayError && cause.code === 'LOG_CORRUPT' ? cause.code : 'LOG_FAILED'
    return new SpillwayError(code, 'The log could not be read.', { cause, cursor: this.cursor })
  }

  async #readPage(): Promise<void> {
    const { log, clock } = this.#source
    const { floor, lost = 0, batches } = await log.read(this.#index, pageLength)
    const gone = Math.max(floor, lost)
    // The buffer has more than the log shows: a copy that lags behind. Asking again at once would be a busy loop.
    if (batches.length === 0 && gone <= this.#index) await new Promise<void>((resolve) => clock.after(retryMs, resolve))
    this.#page = new WeakRef(batches)
    this.#pageAt = 0
    if (gone > this.#index) {
      const reason = lost > floor ? 'corrupt' : this.#reason
      this.#gap = { after: this.#index, before: batches[0]?.index ?? gone + 1, reason }
    }
    this.#reason = 'lag'
  }

  /** Goes on in a later macrotask. */
  #rest(): void {
    if (this.#resting) return
    this.#resting = true
    this.#source.clock.defer(() => {
      this.#resting = false
      if (!this.#ended) this.wake()
    })
  }
}

function ignore(): void {}
