import type { StoredBatch } from '../../core/event.ts'
import type { LogPage } from '../../core/log.ts'
import { Pages as SharedPages } from '../../core/pages.ts'
import { batchOf } from './batch.ts'
import type { Engine } from './engine.ts'
import { Assembler, type StreamRecord } from './record.ts'
import { type DeliveredMessage, Stretch } from './stretch.ts'

/** Sequences of which nothing is there. They are a loss if the batch behind them names one among them as the one before it. */
interface Hole {
  readonly from: number
  readonly upTo: number
}

/** A record as pages need it. */
interface PageRecord extends Pick<StreamRecord, 'seq' | 'kind' | 'head'> {
  readonly batch: StoredBatch | undefined
}

type PageStretch = Stretch<PageRecord | undefined>

/** A piece of the stream. */
interface Span {
  readonly records: readonly PageRecord[]
  readonly holes: Hole[]
  /** The sequence to read on from. */
  readonly next: number
}

interface RecentPage {
  /** `undefined` after its first read: what only one reader wants is not kept, which would cost it a tenth of its time. */
  readonly page: LogPage | undefined
  /** Bytes of its events. */
  readonly size: number
  readonly readAt: number
}

/** What of the stream is there to be read. */
export interface Extent {
  readonly epoch: string
  /** The newest sequence that was read. */
  readonly end: number
  /** Bytes of a message, on average. */
  readonly messageBytes: number
  /** The newest index that is no longer kept, as far as is known. */
  readonly knownFloor: number
  /** The same, asked for now. */
  floor(): Promise<number>
}

/** About how many bytes one page has, and what is on its way ahead of it; and the most messages of that. */
const pageBytes = 2 ** 20
const mostAhead = 1024
/** Readers that are ahead of each other each keep a stretch; more begin anew where they stand. */
const mostStretches = 8
/** Pages that are read at once; others wait, so that a thousand readers are no thousand requests. */
const mostAtOnce = 4
const mostAttempts = 5
const pauseMs = 20
/** Messages that are read at once where the first ones held no batch. */
const fewest = 256

/** Bytes of events in the pages that are kept for those who come to a place a little later, and how much later, in milliseconds. */
const mostRecent = 8 * 2 ** 20
const recentMs = 1000

/** Reads pages of a stream. Readers at one place share a page, and whoever reads on goes on with the same stretch. */
export class Pages {
  readonly #engine: Engine
  readonly #extent: Extent
  readonly #reading = new SharedPages()
  /** What was read last, oldest first. */
  readonly #recent = new Map<string, RecentPage>()
  #recentBytes = 0
  #floorAsked: Promise<number> | undefined
  #stretches: PageStretch[] = []
  #running = 0
  #queue: (() => void)[] = []

  readonly #batchOf: typeof batchOf

  /** `toBatch`: what the batches of its pages are made by. */
  constructor(engine: Engine, extent: Extent, toBatch: typeof batchOf = batchOf) {
    this.#engine = engine
    this.#extent = extent
    this.#batchOf = toBatch
  }

  read(after: number, limit: number): Promise<LogPage> {
    return this.#reading.share(after, limit, () => this.#readOrTake(after, limit))
  }

  close(): void {
    for (const stretch of this.#stretches.splice(0)) stretch.close()
    this.#recent.clear()
  }

  async #readOrTake(after: number, limit: number): Promise<LogPage> {
    const name = `${after} ${limit}`
    this.#forget(performance.now() - recentMs)
    const recent = this.#recent.get(name)?.page
    if (recent) {
      this.#floorAsked ??= this.#extent.floor().finally(() => (this.#floorAsked = undefined))
      const floor = await this.#floorAsked
      if (floor <= after) return { ...recent, floor }
    }
    const page = await this.#inTurn(() => this.#read(after, limit))
    if (page.batches.length > 0) this.#remember(name, this.#recent.has(name) ? page : undefined)
    return page
  }

  #remember(name: string, page: LogPage | undefined): void {
    const size = page?.batches.reduce((sum, { bytes }) => sum + bytes, 0) ?? 0
    this.#recentBytes += size - (this.#recent.get(name)?.size ?? 0)
    this.#recent.delete(name)
    this.#recent.set(name, { page, size, readAt: performance.now() })
    this.#forget(Number.NEGATIVE_INFINITY)
  }

  /** Lets go of pages that were read before `time`, and of the oldest of too many. */
  #forget(time: number): void {
    for (const [name, { size, readAt }] of this.#recent) {
      if (readAt >= time && this.#recentBytes <= mostRecent) return
      this.#recent.delete(name)
      this.#recentBytes -= size
    }
  }

  async #inTurn<T>(read: () => Promise<T>): Promise<T> {
    if (this.#running >= mostAtOnce) await new Promise<void>((resolve) => this.#queue.push(resolve))
    else this.#running++
    try {
      return await read()
    } finally {
      const next = this.#queue.shift()
      if (next) next()
      else this.#running--
    }
  }

  /** Messages that have about as many bytes as a page. */
  get #pageLength(): number {
    return Math.max(1, Math.floor(pageBytes / Math.max(1, this.#extent.messageBytes)))
  }

  async #read(after: number, limit: number): Promise<LogPage> {
    const { end } = this.#extent
    let count = Math.min(limit, this.#pageLength)
    let from = after + 1
    const holes: Hole[] = []
    // What is no batch, such as changes of rights, must not look like the end.
    while (from <= end) {
      const span = await this.#fetch(from, Math.min(count, end - from + 1), end)
      const records = await this.#whole(span)
      holes.push(...span.holes)
      if (records.some(({ kind }) => kind === 'batch' || kind === 'lost'))
        return this.#page(after, limit, records, holes)
      if (span.next === from) break
      from = span.next
      count = Math.max(count, fewest)
    }
    return { floor: await this.#extent.floor(), batches: [] }
  }

  /** The records of appends that count, and of which it is known: what is not known is a hole. */
  async #whole({ records, holes }: Span): Promise<PageRecord[]> {
    const whole: PageRecord[] = []
    const add = async (parts: readonly PageRecord[]) => {
      const [begin] = parts
      const last = parts.at(-1)
      if (!begin || !last) return
      const state = await this.#stateOf(last)
      if (state === 'whole') whole.push(...parts)
      if (state === 'gone') holes.push({ from: begin.seq, upTo: last.seq })
    }
    for (const run of runsOf(records)) {
      const [first] = run
      let start = 0
      if (first && first.head.position > 1) {
        while (run[start]?.head.append === first.head.append) start++
        await add(run.slice(0, start))
      }
      const assembler = new Assembler<PageRecord>()
      for (const record of run.slice(start)) whole.push(...assembler.take(record))
      await add(assembler.open)
    }
    return whole
  }

  /** Whether the append of a record has its last one; that may be gone again already. */
  async #stateOf({ seq, head }: PageRecord): Promise<'whole' | 'broken' | 'gone'> {
    if (head.position === head.count) return 'whole'
    const found = await this.#engine.message(seq + head.count - head.position)
    if (!found) return seq + head.count - head.position > this.#extent.end ? 'broken' : 'gone'
    return this.#engine.record(found)?.head.append === head.append ? 'whole' : 'broken'
  }

  /** Ends before the first loss; one that comes at once is told. */
  async #page(after: number, limit: number, records: readonly PageRecord[], holes: readonly Hole[]): Promise<LogPage> {
    const { knownFloor } = this.#extent
    const batches: StoredBatch[] = []
    let lost = 0
    for (const record of records) {
      const { kind, seq, batch } = record
      if (kind !== 'batch' && kind !== 'lost') continue
      const { previous = seq } = record.head
      const told = batches.at(-1)?.index ?? lost
      const isMissing = holes.some(({ from, upTo }) => upTo < seq && upTo > told && previous >= from)
      if (isMissing || kind === 'lost') {
        if (batches.length > 0) break
        lost = kind === 'lost' ? seq : seq - 1
      }
      if (batch) batches.push(batch)
      if (batches.length === limit) break
    }
    const floor = lost > 0 || after < knownFloor ? await this.#floorBelow(lost, after) : knownFloor
    return lost > Math.max(floor, after) ? { floor, lost, batches } : { floor, batches }
  }

  /** The floor, asked for until it says whether the engine let go of what is missing up to `lost`, or never had it. */
  async #floorBelow(lost: number, after: number): Promise<number> {
    let floor = await this.#extent.floor()
    for (let attempt = 1; lost > Math.max(floor, after) && attempt <= mostAttempts; attempt++) {
      const kept = await this.#engine.next('batch', Math.max(after, floor) + 1)
      const isKept = kept !== undefined && kept.seq <= lost
      // The node that was read lets go of the oldest some milliseconds before the leader does.
      if (isKept) await new Promise((resolve) => setTimeout(resolve, attempt * pauseMs))
      floor = await this.#extent.floor()
      if (!isKept) break
    }
    return floor
  }

  /** `count` messages from sequence `from` on, or from the first one after it that is there; fewer at the end. */
  async #fetch(from: number, count: number, end: number): Promise<Span> {
    for (let attempt = 0; ; attempt++) {
      if (attempt > 0) await new Promise((resolve) => setTimeout(resolve, attempt * pauseMs))
      try {
        const stretch = this.#stretchAt(from) ?? (await this.#begin(from))
        if (stretch) return await this.#take(stretch, count, end)
        // Its node may be one that has not heard of all yet.
        if (attempt === mostAttempts) return { records: [], holes: [], next: from }
      } catch (error) {
        // The engine forgets consumers that nobody has used for a while, and those of a node that went.
        if (attempt === mostAttempts) throw error
      }
    }
  }

  /** `undefined`: there is nothing to be read there. */
  #begin(from: number): Promise<PageStretch | undefined> {
    const ahead = Math.min(mostAhead, this.#pageLength)
    return Stretch.begin(this.#engine, { from, ahead, mostBytes: 2 * pageBytes }, this.#recordOf)
  }

  async #take(stretch: PageStretch, count: number, end: number): Promise<Span> {
    const records: PageRecord[] = []
    const holes: Hole[] = []
    let { next } = stretch
    try {
      for (const { seq, content: record } of await stretch.take(count, end)) {
        if (seq > next) holes.push({ from: next, upTo: seq - 1 })
        if (record) records.push(record)
        next = seq + 1
      }
    } catch (error) {
      stretch.close()
      throw error
    }
    this.#keep(stretch)
    return { records, holes, next }
  }

  readonly #recordOf = (message: DeliveredMessage): PageRecord | undefined => {
    const record = this.#engine.record(message)
    if (!record) return undefined
    const { seq, kind, head } = record
    return { seq, kind, head, batch: kind === 'batch' ? this.#batchOf(this.#extent.epoch, record) : undefined }
  }

  #stretchAt(next: number): PageStretch | undefined {
    const stretch = this.#stretches.find((other) => other.next === next)
    this.#stretches = this.#stretches.filter((other) => other !== stretch)
    return stretch
  }

  #keep(stretch: PageStretch): void {
    this.#stretches.push(stretch)
    if (this.#stretches.length > mostStretches) this.#stretches.shift()?.close()
  }
}

/** Records between which nothing is missing. What goes while a stretch is read leaves holes in its middle. */
function runsOf(records: readonly PageRecord[]): PageRecord[][] {
  const runs: PageRecord[][] = []
  for (const record of records) {
    const run = runs.at(-1)
    if (run?.at(-1)?.seq === record.seq - 1) run?.push(record)
    else runs.push([record])
  }
  return runs
}
