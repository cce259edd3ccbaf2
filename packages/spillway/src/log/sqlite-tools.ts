import { existsSync, statSync } from 'node:fs'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { crc32 } from 'node:zlib'
import { SpillwayError } from '../core/errors.ts'
import { encodeEvents, type PendingBatch, type StoredEvent } from '../core/event.ts'
import { parseBatch } from '../wire/publish.ts'
import { decodeBatch } from './sqlite/codec.ts'
import { type Mark, MarkFile } from './sqlite/mark.ts'
import { checkHeader, isCorrupt, isWhole, type Row, type State, Table } from './sqlite/table.ts'

/** A batch as it stands in a file. */
export interface FileBatch {
  readonly index: number
  /** When it was stored, in Unix milliseconds. */
  readonly time: number
  readonly events: readonly StoredEvent[]
}

/** Indexes strictly between two. `before` is `undefined` where nobody can say how far they go. */
export interface Between {
  readonly after: number
  readonly before: number | undefined
}

/**
 * A piece of a file, in index order. `lost`: what was stored between is damaged or missing. `removed`: its writer let go
 * of it, by its own limits, after it was opened here.
 */
export type FilePart =
  | { readonly batches: readonly FileBatch[] }
  | { readonly lost: Between }
  | { readonly removed: Between }

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

/** Opens a file to look at it. Throws `LOG_UNUSABLE` if it cannot be read or is not a log, `LOG_CORRUPT` if nothing of it can be. */
export function openSqliteFile(path: string): SqliteFile {
  try {
    checkHeader(path)
    return new OpenFile(path)
  } catch (cause) {
    if (cause instanceof SpillwayError) throw cause
    const { message } = cause as Error
    if (isCorrupt(cause) || !isSystem(cause)) {
      throw new SpillwayError('LOG_CORRUPT', `${path} is damaged so that nothing of it can be read: ${message}.`, {
        cause,
      })
    }
    throw new SpillwayError('LOG_UNUSABLE', `${path} cannot be read: ${message}.`, { cause })
  }
}

/** A batch as one line of JSON, payloads as they were published. {@link parseLine} reads it. */
export function formatLine({ index, time, events }: FileBatch): string {
  const texts = events.map(({ topic, type, key, namespace, filterKeys, payloadText }) => {
    const names = JSON.stringify({ topic, type, key, namespace, filterKeys })
    return `${names.slice(0, -1)},"payload":${payloadText}}`
  })
  return `{"index":${index},"time":${time},"events":[${texts.join(',')}]}`
}

const lineFields = ['index', 'time', 'events']

/** Reads what {@link formatLine} wrote. Throws `INVALID`; `at` is how it calls the line. */
export function parseLine(text: string, at: string): PendingBatch & { readonly index: number; readonly time: number } {
  const { index, events } = parseBatch(text, at, lineFields)
  const { time } = JSON.parse(text) as { time?: unknown }
  if (!Number.isSafeInteger(time) || (time as number) < 0) {
    throw new SpillwayError('INVALID', `${at} has no time in Unix milliseconds.`)
  }
  if (index === undefined) throw new SpillwayError('INVALID', `${at} has no index.`)
  if (events.length === 0) throw new SpillwayError('INVALID', `${at} has no events.`)
  return { ...encodeEvents(events, index, at), index, time: time as number }
}

/** About how many characters one part has. */
const partLength = 2 ** 20
const columns = 'idx, seq, total, time, crc, data'

class OpenFile implements SqliteFile {
  readonly path: string
  readonly #db: DatabaseSync
  readonly #table: Table
  readonly #after: StatementSync
  readonly #backwards: StatementSync
  readonly #mark: Mark | undefined
  readonly #state: State | undefined
  readonly last: number | undefined
  /** Where reading ends: `last`, or the end of all indexes. */
  readonly #until: number

  constructor(path: string) {
    this.path = path
    // Before the database: a writer commits first and marks then, so what is marked now can be asked for.
    this.#mark = readMark(path)
    this.#db = new DatabaseSync(path, { readOnly: true })
    try {
      this.#db.exec('PRAGMA cell_size_check = ON')
      this.#table = new Table(this.#db)
      this.#after = this.#db.prepare(`SELECT ${columns} FROM batches WHERE idx > ? AND idx <= ? ORDER BY idx`)
      this.#backwards = this.#db.prepare('SELECT idx FROM batches WHERE idx <= ? ORDER BY idx DESC')
      this.#state = unlessCorrupt(() => this.#table.state())
      const newest = unlessCorrupt(() => this.#table.newest() ?? null)
      const isNewestWhole = newest === null || (newest !== undefined && isWhole(newest))
      const marked = this.#mark && (!this.#state || this.#mark.epoch === this.#state.epoch) ? this.#mark.last : 0
      const last = Math.max(marked, this.#state?.last ?? 0, this.floor, (isNewestWhole && newest?.idx) || 0)
      this.last = isNewestWhole || marked > 0 ? last : undefined
      // Behind a mark that a power cut left old there may be more.
      this.#until = isNewestWhole ? last : Number.MAX_SAFE_INTEGER
    } catch (error) {
      this.#db.close()
      throw error
    }
  }

  get epoch(): string | undefined {
    return this.#state?.epoch
  }

  get durability(): string | undefined {
    return this.#state?.durability
  }

  get floor(): number {
    return this.#state?.floor ?? 0
  }

  get size(): number {
    const { path } = this
    return statSync(path).size + (existsSync(`${path}-wal`) ? statSync(`${path}-wal`).size : 0)
  }

  *parts(): Generator<FilePart> {
    const place: Place = { at: this.floor, seq: this.#state?.floor_seq }
    /** From where on is read. Behind `place` once something could not be. */
    let from = place.at
    while (from < this.#until) {
      const { state, rows, ended, broken } = this.#page(from)
      if (state && state.floor > place.at) {
        yield { removed: { after: place.at, before: Math.min(state.floor, this.#until) + 1 } }
        place.at = state.floor
        place.seq = state.floor_seq
      }
      yield* wholeAndLost(rows, place)
      if (ended) break
      // Rows out of order could otherwise hold it in one place.
      const isStuck = broken || place.at <= from
      from = Math.max(from, place.at)
      if (!isStuck) continue
      const behind = this.#behind(from)
      if (behind === undefined) break
      from = behind
    }
    const { at } = place
    if (this.last !== undefined && at < this.last) yield { lost: { after: at, before: this.last + 1 } }
    else if (this.#until === Number.MAX_SAFE_INTEGER) yield { lost: { after: at, before: undefined } }
  }

  check(): string[] {
    const found: string[] = []
    if (!this.#state) found.push('The record of the epoch and of what was removed is damaged.')
    try {
      for (const { quick_check: text } of this.#db.prepare('PRAGMA quick_check').iterate()) {
        if (text !== 'ok') found.push(...String(text).split('\n'))
      }
      let damaged = 0
      for (const { key, digest, indexes, crc } of this.#db.prepare('SELECT * FROM keys').iterate()) {
        // As the writer checks it.
        if (crc !== crc32(`${key}\n${digest}\n${indexes}`)) damaged++
      }
      if (damaged > 0) found.push(`Ids of publishes that are damaged: ${damaged}. Repeats of them are stored again.`)
    } catch (error) {
      if (!isCorrupt(error)) throw error
      found.push((error as Error).message)
    }
    return found
  }

  close(): void {
    this.#db.close()
  }

  /** Whole rows after `from`. `broken`: SQLite could not read on behind them. */
  #page(from: number): { state: State | undefined; rows: Row[]; ended: boolean; broken: boolean } {
    const rows: Row[] = []
    let state: State | undefined
    let length = 0
    // One snapshot: what its writer removes meanwhile must not look lost.
    this.#db.exec('BEGIN')
    try {
      state = unlessCorrupt(() => this.#table.state())
      for (const row of this.#after.iterate(from, this.#until) as Iterable<unknown> as Iterable<Row>) {
        // Neither its index nor anything else of it can be believed. What follows shows that it is missing.
        if (!isWhole(row)) continue
        rows.push(row)
        length += row.data.length
        if (length >= partLength) return { state, rows, ended: false, broken: false }
      }
      return { state, rows, ended: true, broken: false }
    } catch (error) {
      if (!isCorrupt(error)) throw error
      return { state, rows, ended: false, broken: true }
    } finally {
      this.#db.exec('COMMIT')
    }
  }

  /**
   * The least index above `from` after which SQLite can read. To look for an index goes down the tree, so it gets past a
   * page that reading in order cannot pass; what is behind it at the end is also reached backwards.
   */
  #behind(from: number): number | undefined {
    let broken = from
    let readable = this.#until
    for (let step = 1; from + step < this.#until; step *= 2) {
      if (this.#canRead(from + step)) {
        readable = from + step
        break
      }
      broken = from + step
    }
    if (readable === this.#until) {
      const first = this.#firstFromTheEnd() ?? 0
      if (first - 1 <= from) return undefined
      readable = first - 1
      broken = Math.min(broken, readable - 1)
    }
    while (readable - broken > 1) {
      const middle: number = broken + Math.floor((readable - broken) / 2)
      if (this.#canRead(middle)) readable = middle
      else broken = middle
    }
    return readable
  }

  #canRead(after: number): boolean {
    return unlessCorrupt(() => this.#after.get(after, this.#until)) !== undefined
  }

  #firstFromTheEnd(): number | undefined {
    let first: number | undefined
    unlessCorrupt(() => {
      for (const { idx } of this.#backwards.iterate(this.#until)) first = idx as number
    })
    return first
  }
}

/** The newest index that was read or is accounted for, and the number of its batch, if that is known. */
interface Place {
  at: number
  seq: number | undefined
}

/** Moves `place` over `rows`, and tells what their numbers say is missing between them. */
function* wholeAndLost(rows: readonly Row[], place: Place): Generator<FilePart> {
  let batches: FileBatch[] = []
  for (const { idx, seq, time, data } of rows) {
    if (idx <= place.at) continue
    if (place.seq !== undefined && seq !== place.seq + 1) {
      if (batches.length > 0) yield { batches }
      batches = []
      yield { lost: { after: place.at, before: idx } }
    }
    batches.push({ index: idx, time, events: decodeBatch(data) })
    place.at = idx
    place.seq = seq
  }
  if (batches.length > 0) yield { batches }
}

/** What can be read in spite of damage; `undefined` if it cannot. */
function unlessCorrupt<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (isCorrupt(error) || (error as SpillwayError).code === 'LOG_CORRUPT') return undefined
    throw error
  }
}

function readMark(path: string): Mark | undefined {
  // Opening makes it.
  if (!existsSync(`${path}-mark`)) return undefined
  const file = new MarkFile(`${path}-mark`)
  try {
    return file.read()
  } finally {
    file.close()
  }
}

/** Whether the system refused, rather than that the bytes make no sense. SQLite's codes: READONLY, IOERR, CANTOPEN, ... */
function isSystem(error: unknown): boolean {
  const { errcode = 0, syscall } = error as { errcode?: number; syscall?: string }
  return syscall !== undefined || ![0, 1].includes(errcode & 0xff)
}
