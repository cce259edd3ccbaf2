import { isBuiltin } from 'node:module'
import { batchEnd, decodeBatch, encodeBatch } from '../core/batch-text.ts'
import { type Clock, systemClock } from '../core/clock.ts'
import { digestOf } from '../core/digest.ts'
import { integerOption, SpillwayError, wrongOption } from '../core/errors.ts'
import { type PendingBatch, StoredBatch } from '../core/event.ts'
import { Followers } from '../core/followers.ts'
import type { Appended, AppendOptions, HistoryBatch, Log, LogPage, LogStart } from '../core/log.ts'
import { Pages } from '../core/pages.ts'
import { type PackedOutcome, packGroup, unpackOutcome } from './sqlite/group.ts'
import { Thread } from './sqlite/thread.ts'
import type { Answer, Question } from './sqlite/worker.ts'
import type { Bounds, Job, Opened, WriterOptions } from './sqlite/writer.ts'

export interface SqliteLogOptions {
  /** The file. Its folder must exist. Beside it stand `-wal` and `-shm` while it is open, `-lock` and `-mark`. */
  path: string
  /**
   * What an acknowledged append survives. `power`, the default: a power cut, on a disk that keeps what it confirms.
   * `process`: the end of the process, however it ends; after a power cut the history starts anew with another epoch.
   */
  durability?: 'power' | 'process' | undefined
  /** Batches that are kept; up to a 64th more may be there. Default: no limit. */
  capacity?: number | undefined
  /** Bytes of names and payloads that are kept; up to a 64th more may be there. 0: no limit. Default 1 GiB. */
  maxBytes?: number | undefined
  /** Milliseconds that batches are kept, measured by a clock that cannot be set back. Default: no limit. */
  maxAge?: number | undefined
  clock?: Clock | undefined
}

/** A log in a file. */
export interface SqliteLog extends Log {
  readonly path: string
  /**
   * What had been acknowledged and was not in the file when it was opened: everything after `after` and up to `last`. Its
   * indexes are not given again, and every reader that missed it is told a gap with the reason `corrupt`.
   */
  readonly lost: { readonly after: number; readonly last: number } | undefined
}

/** Indexes strictly between two. `before` is `undefined` where nobody can say how far they go. */
export interface FileRange {
  readonly after: number
  readonly before: number | undefined
}

/**
 * A piece of a file, in index order. `lost`: what was stored between is damaged or missing. `removed`: its writer let go
 * of it, by its own limits, after it was opened here.
 */
export type FilePart =
  | { readonly batches: readonly HistoryBatch[] }
  | { readonly lost: FileRange }
  | { readonly removed: FileRange }

/**
 * A file of `sqliteLog`, to look at: with a writer or without. It writes nothing, and it holds a snapshot only while a
 * page is read, so that the writer's journal does not grow with a slow reader.
 */
export interface SqliteFile {
  readonly path: string
  /** `undefined`: the file's own record of it is damaged. */
  readonly epoch: string | undefined
  readonly durability: string | undefined
  /** The newest index that was no longer kept when the file was opened. 0 if the record of it is damaged. */
  readonly floor: number
  /** The newest index when the file was opened, whether or not it can still be read. `undefined`: nobody can say. */
  readonly last: number | undefined
  /** Bytes of the file and its journal. */
  readonly size: number
  /** Everything after `floor` and up to `last`. Gets past damage as long as SQLite can find anything behind it. */
  parts(): Generator<FilePart>
  /** What is wrong with the file itself, in SQLite's words and ours. Empty: nothing. */
  check(): string[]
  close(): void
}

const defaultMaxBytes = 2 ** 30
/** About how many bytes one page has: what a reader holds of the log at once. */
const pageBytes = 2 ** 20
/** What one commit takes, so that nobody waits long for one. */
const groupLength = 1024
const groupBytes = 4 * 2 ** 20
/** Characters that may wait for a commit; beyond, publishers are told to come back. */
const maxWaiting = 64 * 2 ** 20
/** How often at the most and at least ages are looked at, in milliseconds. */
const shortestRound = 100
const longestRound = 60_000

/**
 * Opens a log in a file, or makes it: SQLite in WAL mode, one row a batch. Needs Node 22.13.
 *
 * Order    Appends that come while a commit runs share the next one, in the order in which they came. Followers are told,
 *          and `append` resolves, once the commit reached `durability`.
 * Threads  One writes, one reads, so neither the disk nor a long history holds up the event loop.
 * Losses   What is damaged or missing is never taken for a batch and never passed over in silence, see {@link SqliteLog.lost}.
 *
 * Rejects with `CONFIG`; `LOG_UNUSABLE` for a file that cannot be written, is in use, not a log or of a newer version;
 * `LOG_CORRUPT` for one that is damaged beyond that.
 */
export async function sqliteLog({ clock = systemClock, ...options }: SqliteLogOptions): Promise<SqliteLog> {
  const { path, durability = 'power' } = options
  if (typeof path !== 'string' || path === '') throw wrongOption('path', 'the path of a file', path)
  if (durability !== 'power' && durability !== 'process')
    throw wrongOption('durability', '"power" or "process"', durability)
  const limits: WriterOptions = {
    path,
    durability,
    capacity: integerOption('capacity', options.capacity ?? 0, 0) || Number.POSITIVE_INFINITY,
    maxBytes: integerOption('maxBytes', options.maxBytes ?? defaultMaxBytes, 0) || Number.POSITIVE_INFINITY,
    maxAge: integerOption('maxAge', options.maxAge ?? 0, 0) || Number.POSITIVE_INFINITY,
  }
  needSqlite()
  const writer = new Thread({ ...limits, role: 'write' })
  const { opened } = (await writer.opened) as { opened: Opened }
  return new FileLog(limits, clock, writer, opened)
}

/**
 * Opens a log's file to look at it, also while it is written and where it is damaged. Rejects with `LOG_UNUSABLE` if it
 * cannot be read or is not a log, `LOG_CORRUPT` if nothing of it can be read.
 */
export async function openSqliteFile(path: string): Promise<SqliteFile> {
  needSqlite()
  const { openFile } = await import('./sqlite/file.ts')
  return openFile(path)
}

/**
 * Makes a log at `path` of parts with ascending indexes, of which each is stored at once; a thousand batches, or a megabyte,
 * make a good one. Their times are kept, and readers are told what is missing. Resolves with the number of batches. The log
 * has an epoch of its own. It is there whole or not at all, and nobody else can open it meanwhile. Rejects with
 * `LOG_UNUSABLE` if there is one already or the folder cannot be written; `INVALID` for a time more than a day ahead of the
 * clock, `INDEX_ORDER` for an index that is not above the one before; with what `parts` throws.
 */
export async function importSqlite(path: string, parts: AsyncIterable<FilePart> | Iterable<FilePart>): Promise<number> {
  needSqlite()
  const { importFile } = await import('./sqlite/import.ts')
  return importFile(path, parts)
}

function needSqlite(): void {
  if (isBuiltin('node:sqlite')) return
  throw new SpillwayError('LOG_UNUSABLE', `Logs on disk need Node 22.13 or newer, this is ${process.version}.`)
}

interface Append {
  readonly job: Job
  readonly batches: readonly PendingBatch[]
  readonly size: number
  resolve(appended: Appended): void
  reject(error: unknown): void
}

class FileLog implements SqliteLog {
  readonly path: string
  readonly epoch: string
  readonly lost: SqliteLog['lost']
  readonly #limits: WriterOptions
  readonly #clock: Clock
  readonly #writer: Thread
  #reader: Thread | undefined
  readonly #followers = new Followers()
  readonly #pages = new Pages()
  /** The page behind the one that was given last: who reads on finds it, and waits for neither thread. */
  #ahead: { readonly name: string; readonly page: Promise<LogPage | undefined> } | undefined
  #bounds: Bounds
  /** What makes the log's time of the monotonic clock: it neither jumps nor falls, also below what is stored. */
  readonly #timeOffset: number
  #queue: Append[] = []
  #waiting = 0
  #flushing: Promise<void> | undefined
  #stopTrimming: (() => void) | undefined
  #closed: Promise<void> | undefined

  constructor(limits: WriterOptions, clock: Clock, writer: Thread, { epoch, time, lost, ...bounds }: Opened) {
    this.path = limits.path
    this.epoch = epoch
    this.lost = lost
    this.#limits = limits
    this.#clock = clock
    this.#writer = writer
    this.#bounds = bounds
    this.#timeOffset = Math.max(clock.now(), time) - clock.monotonic()
    this.#trimLater()
  }

  get floor(): number {
    return this.#bounds.floor
  }

  get last(): number {
    return this.#bounds.last
  }

  async append(batches: readonly PendingBatch[], { key, expected }: AppendOptions = {}): Promise<Appended> {
    if (this.#closed) throw new SpillwayError('CLOSED', 'The log was closed. The events were not stored.')
    let size = 0
    const texts = batches.map(({ bytes, events, index, time }) => {
      if (bytes > this.#limits.maxBytes) throw tooLarge(bytes, this.#limits.maxBytes)
      const text = encodeBatch(events)
      size += text.length
      return { text, index, time }
    })
    if (this.#waiting > 0 && this.#waiting + size > maxWaiting) {
      throw new SpillwayError(
        'OVERLOADED',
        `${this.#waiting} characters wait to be stored already. Nothing was stored.`,
      )
    }
    this.#waiting += size
    const job: Job = { batches: texts, key, expected, digest: key === undefined ? 0 : digestOf(batches) }
    return new Promise((resolve, reject) => {
      this.#queue.push({ job, batches, size, resolve, reject })
      this.#flushing ??= this.#flush()
    })
  }

  read(after: number, limit: number): Promise<LogPage> {
    return this.#pages.share(after, limit, () => this.#readOrTake(after, limit))
  }

  async #readOrTake(after: number, limit: number): Promise<LogPage> {
    const name = `${after} ${limit}`
    const ahead = this.#ahead?.name === name ? this.#ahead : undefined
    if (ahead) this.#ahead = undefined
    let page = await ahead?.page
    // What was the end may not be it any more.
    if (!page || page.batches.length === 0) page = await this.#read(after, limit)
    const end = page.batches.at(-1)
    // Not for one of many readers, whose pages would take each other's place.
    if (end && page.batches.length === limit && this.#pages.size === 1) this.#readAhead(end.index, limit)
    return page
  }

  #readAhead(after: number, limit: number): void {
    // A failure is told to whoever asks for the page, by asking again.
    const page = this.#read(after, limit).catch(() => undefined)
    this.#ahead = { name: `${after} ${limit}`, page }
  }

  async locate(start: LogStart): Promise<number> {
    const { located } = (await this.#askReader({ locate: start })) as { located: number }
    return located
  }

  follow(listener: (batch: StoredBatch) => void): () => void {
    return this.#followers.add(listener, this.last)
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    this.#stopTrimming?.()
    await this.#flushing
    const reader = this.#reader
    this.#reader = undefined
    this.#ahead = undefined
    // A reader that has failed must not keep the writer's lock.
    await reader?.ask({ close: true }).catch(() => {})
    await this.#writer.ask({ close: true })
  }

  /** Commits what waits, group after group. */
  async #flush(): Promise<void> {
    // What else this turn publishes shares the first commit.
    await Promise.resolve()
    while (this.#queue.length > 0) {
      const group = this.#takeGroup()
      try {
        const commit = packGroup(group.map(({ job }) => job))
        this.#settle(group, await this.#writer.ask({ commit, now: this.#now() }))
      } catch (error) {
        for (const { reject } of group) reject(error)
      }
      for (const { size } of group) this.#waiting -= size
    }
    this.#flushing = undefined
  }

  #takeGroup(): Append[] {
    let length = 0
    let size = 0
    for (const append of this.#queue) {
      size += append.size
      if (length > 0 && (length >= groupLength || size > groupBytes)) break
      length++
    }
    return this.#queue.splice(0, length)
  }

  #settle(group: readonly Append[], answer: Answer): void {
    const { outcomes, bounds } = answer as Extract<Answer, { bounds: Bounds }>
    this.#bounds = bounds
    for (const [n, { batches, resolve, reject }] of group.entries()) {
      const outcome = unpackOutcome(outcomes[n] as PackedOutcome)
      if ('code' in outcome) {
        const { code, message, index } = outcome
        reject(new SpillwayError(code, message, index === undefined ? {} : { index }))
        continue
      }
      if (!outcome.duplicate) {
        const stored = batches.map((batch, m) => new StoredBatch(this.epoch, outcome.indexes[m] as number, batch))
        this.#followers.tell(stored)
      }
      resolve(outcome)
    }
  }

  async #read(after: number, limit: number): Promise<LogPage> {
    const question = { read: after, limit, maxBytes: pageBytes, last: this.last }
    const { page } = (await this.#askReader(question)) as Extract<Answer, { page: unknown }>
    const { floor, lost, indexes, sizes, text } = page
    const texts = text.split(batchEnd)
    const batches = indexes.map((index, n) => {
      return new StoredBatch(this.epoch, index, { events: decodeBatch(texts[n] as string), bytes: sizes[n] as number })
    })
    return lost > 0 ? { floor, lost, batches } : { floor, batches }
  }

  async #askReader(question: Question): Promise<Answer> {
    if (this.#closed) throw new SpillwayError('CLOSED', 'The log was closed.')
    if (!this.#reader || this.#reader.hasEnded) this.#reader = new Thread({ ...this.#limits, role: 'read' })
    const reader = this.#reader
    await reader.opened
    return reader.ask(question)
  }

  /** Unix milliseconds by which batches age. */
  #now(): number {
    return this.#timeOffset + this.#clock.monotonic()
  }

  #trimLater(): void {
    const { maxAge } = this.#limits
    if (maxAge === Number.POSITIVE_INFINITY) return
    const round = Math.min(Math.max(maxAge / 10, shortestRound), longestRound)
    this.#stopTrimming = this.#clock.after(round, async () => {
      // Before the next look: one is enough at a time. What fails here fails again for a publisher, who is told.
      await this.#trim().catch(() => {})
      if (!this.#closed) this.#trimLater()
    })
  }

  async #trim(): Promise<void> {
    if (this.#closed) return
    this.#settle([], await this.#writer.ask({ commit: packGroup([]), now: this.#now() }))
  }
}

function tooLarge(bytes: number, most: number): SpillwayError {
  return new SpillwayError('TOO_LARGE', `The batch has ${bytes} bytes, maxBytes is ${most}. Nothing was stored.`)
}
