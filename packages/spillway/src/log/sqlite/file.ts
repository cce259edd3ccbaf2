import { accessSync, constants, existsSync, statSync } from 'node:fs'
import path from 'node:path'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { pathToFileURL } from 'node:url'
import { decodeBatch } from '../../core/batch-text.ts'
import { SpillwayError } from '../../core/errors.ts'
import type { HistoryBatch } from '../../core/log.ts'
import type { FilePart, SqliteFile } from '../sqlite.ts'
import { bootId, readMark } from './mark.ts'
import {
  checkHeader,
  columns,
  isCorrupt,
  isWhole,
  keyCheck,
  patience,
  type Row,
  rowsOf,
  type State,
  snapshot,
  Table,
} from './table.ts'

/** See `openSqliteFile`. */
export function openFile(path: string): SqliteFile {
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

/** About how many characters one part has. */
const partLength = 2 ** 20

class OpenFile implements SqliteFile {
  readonly path: string
  readonly #db: DatabaseSync
  readonly #table: Table
  readonly #after: StatementSync
  readonly #backwards: StatementSync
  readonly #state: State | undefined
  readonly last: number | undefined
  /** Where reading ends: `last`, or the end of all indexes. */
  readonly #until: number
  /** Whether nobody had it open: what opening it leaves behind is then taken away. */
  readonly #isStill: boolean

  constructor(file: string) {
    this.path = file
    // Before the database: a writer commits first and marks then, so what is marked now can be asked for.
    const found = readMark(`${file}-mark`)
    this.#isStill = !existsSync(`${file}-wal`)
    this.#db = new DatabaseSync(this.#isStill && !isWritable(path.dirname(file)) ? immutable(file) : file, {
      readOnly: true,
    })
    try {
      this.#db.exec(`${patience} PRAGMA cell_size_check = ON`)
      this.#table = new Table(this.#db)
      this.#after = this.#db.prepare(`SELECT ${columns} FROM batches WHERE idx > ? AND idx <= ? ORDER BY idx`)
      this.#backwards = this.#db.prepare('SELECT idx FROM batches WHERE idx <= ? ORDER BY idx DESC')
      this.#state = unlessCorrupt(() => this.#table.state())
      const newest = unlessCorrupt(() => this.#table.newest())
      const isNewestWhole = newest !== undefined && newest.damaged === undefined
      const mark = !this.#state || found?.epoch === this.#state.epoch ? found : undefined
      const last = Math.max(mark?.last ?? 0, this.#state?.last ?? 0, this.floor, newest?.row?.idx ?? 0)
      this.last = isNewestWhole || mark ? last : undefined
      // Behind a mark that a power cut left old there may be more.
      const isMarkExact = mark && (mark.isClosed || (mark.boot !== '' && mark.boot === bootId()))
      this.#until = isNewestWhole || isMarkExact ? last : Number.MAX_SAFE_INTEGER
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
        if (crc !== keyCheck(key as string, digest as number, indexes as string)) damaged++
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
    if (this.#isStill) removeJournal(this.path)
  }

  /** Whole rows after `from`. `broken`: SQLite could not read on behind them. */
  #page(from: number): { state: State | undefined; rows: Row[]; ended: boolean; broken: boolean } {
    const rows: Row[] = []
    let state: State | undefined
    let length = 0
    // One snapshot: what its writer removes meanwhile must not look lost.
    return snapshot(this.#db, () => {
      try {
        state = unlessCorrupt(() => this.#table.state())
        for (const row of rowsOf<Row>(this.#after, from, this.#until)) {
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
      }
    })
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
  let batches: HistoryBatch[] = []
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

/** Without a journal there is nothing to share with a writer, and no folder to write to. */
function immutable(file: string): URL {
  const url = pathToFileURL(file)
  url.searchParams.set('immutable', '1')
  return url
}

function isWritable(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK)
    return true
  } catch {
    return false
  }
}

/**
 * SQLite leaves its own empty files behind a connection that only reads. One that may write takes them away as it closes,
 * unless somebody else has the file open.
 */
function removeJournal(file: string): void {
  try {
    if (statSync(`${file}-wal`).size > 0) return
    const db = new DatabaseSync(file)
    try {
      db.exec(patience)
      db.prepare('SELECT count(*) FROM sqlite_schema').get()
    } finally {
      db.close()
    }
  } catch {
    // There are none, it is in use, or it cannot be written.
  }
}

/** Whether the system refused, rather than that the bytes make no sense. SQLite's codes: READONLY, IOERR, CANTOPEN, ... */
function isSystem(error: unknown): boolean {
  const { errcode = 0, syscall } = error as { errcode?: number; syscall?: string }
  return syscall !== undefined || ![0, 1].includes(errcode & 0xff)
}
