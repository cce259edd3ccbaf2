import { formatCursor, parseCursor } from '../core/cursor.ts'
import { invalid, lagError, SpillwayError } from '../core/errors.ts'
import { type Batch, checkIndex, type Gap, type StreamEvent } from '../core/event.ts'
import { Filter, type FilterOptions } from '../core/filter.ts'
import type { Signal } from '../core/signal.ts'
import type { Subscription } from '../core/subscription.ts'
import { WaitingSubscription } from '../core/waiting-subscription.ts'
import { damaged, recordType } from './layout.ts'
import type { OpenedRing } from './opened.ts'
import { newestPlace, oldestPlace, type Place, placeAfter, RingReader } from './reader.ts'
import type { Span } from './span.ts'
import { TagFilter } from './tags.ts'

export interface SharedSubscribeOptions extends Pick<FilterOptions, 'topics' | 'namespaces'> {
  /** `latest`, the default: only what is new. `earliest`: all that is kept. A cursor or an index: what comes after it. */
  from?: 'latest' | 'earliest' | (string & {}) | number | undefined
  /** `fail`, the default: a loss rejects with `LAGGED`. `skip`: it is told as a batch with a `gap`, and the stream goes on. */
  onLag?: 'fail' | 'skip' | undefined
  /** Ends the subscription; a waiting `next` rejects with its reason. */
  signal?: Signal | undefined
}

/** A {@link Subscription} to a buffer that another thread fills. It may also wait by blocking its thread. */
export interface SharedSubscription<Event extends StreamEvent = StreamEvent> extends Subscription<Event> {
  /** How many batches were overwritten before this reader came to them, whether it wanted them or not. */
  readonly lost: number
  /**
   * The next batch or gap; blocks the thread until there is one, or for `timeout` milliseconds, and gives `undefined` then.
   * Throws as `next` rejects, and `INVALID` where a thread may not block, as on a page.
   */
  nextSync(options?: { timeout?: number }): Batch<Event> | undefined
}

/** How many records that do not match are passed over in one go. */
const maxScan = 4096

interface Start {
  readonly place: Place
  readonly gap?: Gap
}

export class RingSubscription extends WaitingSubscription implements SharedSubscription {
  readonly ready: Promise<void>
  readonly #opened: OpenedRing
  readonly #filter: Filter
  readonly #tags: TagFilter
  readonly #from: NonNullable<SharedSubscribeOptions['from']>
  readonly #onLag: 'fail' | 'skip'
  readonly #stopListening: () => void
  /** Made once the buffer is fed: there is no place before. */
  #reader: RingReader | undefined
  /** A loss that is not told yet, and the cursor that stands before it. */
  #gap: { readonly gap: Gap; readonly cursor: string } | undefined
  /** Weak: a reader that stands still keeps its place and nothing else. */
  #span: WeakRef<Span> | undefined
  #entry: { resolve(): void; reject(reason: unknown): void } | undefined
  #isResting = false
  #ended = false
  #error: unknown

  /** Throws `INVALID` that names the field. */
  constructor(opened: OpenedRing, options: SharedSubscribeOptions) {
    super()
    const { topics, namespaces, from = 'latest', onLag = 'fail', signal } = options
    if (onLag !== 'fail' && onLag !== 'skip') throw invalid('onLag', 'be "fail" or "skip"', onLag)
    checkFrom(from)
    if (signal?.aborted) throw signal.reason
    this.#opened = opened
    this.#filter = new Filter({ topics, namespaces })
    this.#tags = new TagFilter(this.#filter.topics)
    this.#from = from
    this.#onLag = onLag
    const abort = () => this.fail(signal?.reason)
    signal?.addEventListener('abort', abort)
    this.#stopListening = () => signal?.removeEventListener('abort', abort)
    this.ready = new Promise((resolve, reject) => {
      this.#entry = { resolve, reject }
    })
    this.ready.catch(ignore)
    if (!this.#begin()) opened.park(this)
  }

  get cursor(): string {
    if (this.#gap) return this.#gap.cursor
    const reader = this.#reader
    if (!reader || this.#opened.history === '') return ''
    return formatCursor(this.#opened.history, reader.loss?.after ?? reader.index)
  }

  get lag(): number {
    const reader = this.#reader
    if (!reader) return 0
    return Math.max(0, this.#opened.newestIndex - (reader.loss?.after ?? reader.index))
  }

  get lost(): number {
    return this.#reader?.lost ?? 0
  }

  get closed(): boolean {
    return this.#ended
  }

  /** The word of TAIL that it has read up to. */
  get tail(): number {
    return this.#reader?.tail ?? this.#opened.firstTail
  }

  /** It has passed over much, and looks again in a later turn. */
  get isResting(): boolean {
    return this.#isResting
  }

  nextSync({ timeout = Number.POSITIVE_INFINITY }: { timeout?: number } = {}): Batch | undefined {
    if (typeof timeout !== 'number' || !(timeout >= 0)) throw invalid('timeout', 'be 0 or more milliseconds', timeout)
    const deadline = this.#opened.now() + timeout
    for (;;) {
      const batch = this.take()
      if (batch) return batch
      const left = deadline - this.#opened.now()
      if (!(left > 0) && !this.#isResting) return undefined
      if (!this.#isResting && !this.#opened.sleep(this.tail, left)) return this.take()
    }
  }

  take(): Batch | undefined {
    if (this.#ended) throw this.#error
    try {
      return this.#takeNext()
    } catch (cause) {
      const error = cause instanceof SpillwayError ? cause : damaged(`what follows ${this.cursor}`, cause)
      this.fail(error)
      throw error
    }
  }

  #takeNext(): Batch | undefined {
    this.#isResting = false
    if (!this.#begin()) return undefined
    const reader = this.#reader as RingReader
    for (let scanned = 0; scanned < maxScan; scanned++) {
      if (this.#gap) return this.#tell(this.#gap.gap)
      const span = this.#look(reader)
      if (reader.loss) {
        const { after, upTo } = reader.loss
        return this.#tell({ after, before: upTo + 1, reason: 'lag' })
      }
      if (!span) return undefined
      const batch = this.#pass(reader, span)
      if (batch) return batch
    }
    this.#isResting = true
    return undefined
  }

  /** Told by the opened ring: there may be something. Answers whether it goes on waiting. */
  wake(): boolean {
    try {
      if (this.#begin() && this.waiting) {
        const batch = this.take()
        if (batch) this.resolveWait(batch)
      }
    } catch (error) {
      this.fail(error)
    }
    return !this.#ended && (this.waiting !== undefined || !this.#reader)
  }

  protected override takeAtOnce(): Batch | undefined {
    if (this.#opened.isTired && !this.#ended) return undefined
    const batch = this.take()
    if (batch) this.#opened.tire()
    return batch
  }

  protected override waitBegan(): void {
    this.#opened.park(this)
  }

  protected override waitAborted(): void {
    if (this.#reader) this.#opened.unpark(this)
  }

  /** Finds its place, once the buffer is fed. */
  #begin(): boolean {
    if (this.#reader) return true
    if (!this.#opened.isFed) return false
    const { place, gap } = this.#locate()
    this.#reader = new RingReader(this.#opened.ring, place, this.#opened.spans)
    if (gap) {
      const epoch = gap.reason === 'epoch' ? parseCursor(this.#from as string).epoch : this.#opened.history
      this.#gap = { gap, cursor: formatCursor(epoch, gap.after) }
    }
    this.#entry?.resolve()
    this.#entry = undefined
    return true
  }

  #locate(): Start {
    const { ring, history } = this.#opened
    const from = this.#from
    // Without a history the buffer was closed before it was fed.
    if (from === 'latest' || history === '') return { place: newestPlace(ring) }
    const oldest = oldestPlace(ring)
    if (from === 'earliest') return { place: oldest }
    const { epoch, index } = typeof from === 'number' ? { epoch: history, index: from } : parseCursor(from)
    if (epoch !== history) return { place: oldest, gap: gapTo(oldest, index, 'epoch') }
    const newest = newestPlace(ring)
    if (index > newest.index) return { place: newest, gap: gapTo(newest, index, 'truncated') }
    const found = placeAfter(ring, index)
    const place = found.seq < oldest.seq ? oldest : found
    if (place.index > index) return { place, gap: gapTo(place, index, 'retention') }
    // Indexes may skip: it has seen more than the batch before its place.
    return { place: { ...place, index } }
  }

  #look(reader: RingReader): Span | undefined {
    const last = this.#span?.deref()
    if (last && reader.position < last.position + last.end) return last
    const span = reader.read()
    this.#span = span && new WeakRef(span)
    return span
  }

  /** Moves on by a record, and gives what is wanted of it. */
  #pass(reader: RingReader, span: Span): Batch | undefined {
    const at = reader.position - span.position
    switch (span.typeAt(at)) {
      case recordType.batch: {
        const batch = this.#tags.mayWant(span.tagAt(at), span.keyAt(at)) ? this.#select(span, at) : undefined
        reader.pass(span, at)
        return batch
      }
      case recordType.gap: {
        const { before, reason } = this.#opened.gapAt(span, at)
        // It may have begun behind the place that the feed lost.
        const gap = { after: reader.index, before, reason }
        const { cursor } = this
        reader.pass(span, at)
        if (gap.before > gap.after + 1) this.#gap = { gap, cursor }
        return undefined
      }
      case recordType.closed:
      case recordType.error:
        throw this.#opened.errorAt(span, at)
      default:
        reader.pass(span, at)
        return undefined
    }
  }

  #select(span: Span, at: number): Batch | undefined {
    const batch = this.#opened.batchAt(span, at)
    const events = batch.events.filter((event) => this.#filter.wants(event))
    if (events.length === 0) return undefined
    return events.length === batch.events.length ? batch : { ...batch, events }
  }

  #tell(gap: Gap): Batch {
    const cursor = formatCursor(this.#opened.history, gap.before - 1)
    if (this.#onLag === 'fail') throw lagError(gap, cursor)
    if (this.#gap) this.#gap = undefined
    else this.#reader?.tell()
    return { index: gap.before - 1, cursor, events: [], gap }
  }

  fail(error: unknown): void {
    if (this.#ended) return
    this.#ended = true
    this.#error = error
    this.#span = undefined
    this.#stopListening()
    this.#opened.unpark(this)
    this.#entry?.reject(error)
    this.#entry = undefined
    this.rejectWait(error)
  }
}

function gapTo({ index }: Place, after: number, reason: Gap['reason']): Gap {
  return { after, before: index + 1, reason }
}

function checkFrom(from: unknown): void {
  if (from === 'latest' || from === 'earliest') return
  if (typeof from === 'string') parseCursor(from)
  else checkIndex('from', from, 0)
}

function ignore(): void {}
