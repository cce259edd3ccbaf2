import { existsSync, renameSync, rmSync, statSync } from 'node:fs'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { newEpoch } from '../../core/cursor.ts'
import { SpillwayError, shown } from '../../core/errors.ts'
import { keyWindow, latestTime } from '../../core/log.ts'
import { checkExpected, keyReused, nextIndex } from '../../core/memory-log.ts'
import type { FileRange } from '../sqlite.ts'
import { bootId, type Mark, MarkFile } from './mark.ts'
import {
  checkHeader,
  checkSchema,
  isCorrupt,
  keyCheck,
  patience,
  type Row,
  rowCheck,
  rowsOf,
  type State,
  schema,
  stateCheck,
  Table,
} from './table.ts'

export interface WriterOptions {
  readonly path: string
  readonly durability: 'power' | 'process'
  /** Infinity: no limit. */
  readonly capacity: number
  readonly maxBytes: number
  readonly maxAge: number
}

export interface PendingText {
  readonly text: string
  readonly index?: number | undefined
  readonly time?: number | undefined
}

/** One append, as it comes from the other thread. */
export interface Job {
  readonly batches: readonly PendingText[]
  readonly key: string | undefined
  readonly digest: number
  readonly expected: number | undefined
}

/** What became of it. */
export type Outcome =
  | { readonly indexes: readonly number[]; readonly duplicate: boolean }
  | { readonly code: SpillwayError['code']; readonly message: string; readonly index?: number | undefined }

/** What the owner of a log knows of it. */
export interface Bounds {
  readonly floor: number
  readonly last: number
}

export interface Opened extends Bounds {
  readonly epoch: string
  /** The time of the newest batch, in Unix milliseconds; 0: there is none. */
  readonly time: number
  /** What was acknowledged and is not there: everything after `after` and up to `last`. */
  readonly lost: { readonly after: number; readonly last: number } | undefined
}

/** How many batches one commit removes at the most, beside twice what it stores: appends must not wait for a long cleaning. */
const sliceLength = 512

/** SQLite's codes: https://www.sqlite.org/rescode.html */
const busy = 5
const full = 13
const sharedMemoryFull = 4874

/** The one connection that writes. Everything in it is synchronous: it lives in a thread of its own. */
export class Writer {
  readonly opened: Opened
  readonly #options: WriterOptions
  readonly #lock: DatabaseSync
  readonly #db: DatabaseSync
  readonly #table: Table
  readonly #mark: MarkFile
  readonly #state: State
  readonly #insert: StatementSync
  readonly #setState: StatementSync
  readonly #oldest: StatementSync
  readonly #remove: StatementSync
  readonly #findKey: StatementSync
  readonly #insertKey: StatementSync
  readonly #boot = bootId()
  #last = 0
  #seq = 0
  #total = 0
  #time = 0
  #keyCount: number
  #failure: string | undefined

  /** Opens or makes the file. Throws `LOG_UNUSABLE` or `LOG_CORRUPT`; the file is as it was then. */
  constructor(options: WriterOptions) {
    const { path, durability } = options
    this.#options = options
    this.#lock = lock(path)
    try {
      // Nobody imports here while this has the lock: it was killed.
      removeLog(unfinishedImport(path))
      if (existsSync(path)) examine(path)
      else create(path, durability)
      this.#db = new DatabaseSync(path)
      this.#db.exec(
        `${patience} PRAGMA journal_mode = WAL; PRAGMA synchronous = ${durability === 'power' ? 'FULL' : 'NORMAL'};
         PRAGMA cell_size_check = ON; PRAGMA journal_size_limit = 67108864;`,
      )
      this.#table = new Table(this.#db)
      this.#setState = this.#db.prepare(
        'UPDATE state SET epoch = ?, durability = ?, floor = ?, floor_seq = ?, floor_total = ?, last = ?, last_seq = ?, crc = ?',
      )
      this.#insert = this.#db.prepare('INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?)')
      this.#oldest = this.#db.prepare('SELECT idx, seq, total, time FROM batches WHERE idx > ? ORDER BY idx LIMIT ?')
      this.#remove = this.#db.prepare('DELETE FROM batches WHERE idx <= ?')
      this.#findKey = this.#db.prepare('SELECT digest, indexes, crc FROM keys WHERE key = ?')
      this.#insertKey = this.#db.prepare('INSERT OR REPLACE INTO keys (key, digest, indexes, crc) VALUES (?, ?, ?, ?)')
      this.#keyCount = (this.#db.prepare('SELECT max(n) - min(n) + 1 AS count FROM keys').get()?.count ?? 0) as number
      this.#mark = new MarkFile(`${path}-mark`)
      this.#state = this.#table.state()
      const found = this.#mark.read()
      const mark = found?.epoch === this.#state.epoch ? found : undefined
      const { row, damaged } = this.#table.newest()
      // Behind a damaged row only the mark says which indexes were given, and what is appended must not meet it.
      if (damaged !== undefined && !(mark && mark.last >= damaged)) {
        throw new SpillwayError('LOG_CORRUPT', `The newest batch of ${path} is damaged.`)
      }
      this.#table.checkTail()
      this.#standOn(row)
      const lost = this.#findLoss(mark)
      this.opened = { epoch: this.#state.epoch, floor: this.#state.floor, last: this.#last, time: this.#time, lost }
      this.#writeMark(false)
      this.#mark.sync()
    } catch (error) {
      this.#lock.close()
      throw problem(error, path)
    }
  }

  get bounds(): Bounds {
    return { floor: this.#state.floor, last: this.#last }
  }

  /** Stores what can be stored of `jobs` in one transaction. Throws `LOG_FAILED`: nothing of them is stored then. */
  commit(jobs: readonly Job[], now: number): Outcome[] {
    if (this.#failure) throw new SpillwayError('LOG_FAILED', this.#failure)
    const before = [this.#last, this.#seq, this.#total, this.#time, this.#keyCount] as const
    const state = { ...this.#state }
    try {
      this.#db.exec('BEGIN IMMEDIATE')
      const outcomes = jobs.map((job) => this.#store(job, now))
      // As many again as came, so that a fast writer does not outrun the cleaning.
      this.#trim(now, Math.max(sliceLength, 2 * (this.#seq - before[1])))
      this.#db.exec('COMMIT')
      this.#noteCommit()
      return outcomes
    } catch (error) {
      ;[this.#last, this.#seq, this.#total, this.#time, this.#keyCount] = before
      Object.assign(this.#state, state)
      this.#rollBack()
      throw this.#failed(error)
    }
  }

  /** What is committed is acknowledged, also if the mark fails: then it is the last. */
  #noteCommit(): void {
    try {
      this.#writeMark(false)
    } catch (error) {
      this.#failed(error)
    }
  }

  /** Batches strictly between are missing. Readers are told so as they come to the next one. */
  skip({ before }: FileRange): void {
    if (before !== undefined) this.#last = Math.max(this.#last, before - 1)
    this.#seq++
  }

  /** Leaves one file, and the mark that it is whole. */
  close(): void {
    try {
      this.#db.exec('PRAGMA wal_checkpoint(TRUNCATE)')
    } catch {
      // What is committed is in the other file, and is found there.
    }
    this.#db.close()
    if (!this.#failure) {
      this.#writeMark(true)
      this.#mark.sync()
    }
    this.#mark.close()
    this.#lock.close()
  }

  #store({ batches, key, digest, expected }: Job, now: number): Outcome {
    try {
      const first = key === undefined ? undefined : this.#recall(key)
      if (first && first.digest !== digest) throw keyReused(key as string)
      if (first) return { indexes: first.indexes, duplicate: true }
      checkExpected(expected, this.#last)
      let last = this.#last
      const indexes = batches.map(({ index }) => {
        last = nextIndex(last, index)
        return last
      })
      for (const { time = now } of batches) checkTime(time)
      for (const [n, { text, time = now }] of batches.entries()) this.#insertBatch(indexes[n] as number, text, time)
      if (key !== undefined) this.#remember(key, digest, indexes)
      return { indexes, duplicate: false }
    } catch (error) {
      if (!(error instanceof SpillwayError)) throw error
      const { code, message, index } = error
      return { code, message, index }
    }
  }

  #insertBatch(index: number, text: string, time: number): void {
    const seq = this.#seq + 1
    const total = this.#total + Buffer.byteLength(text)
    this.#time = Math.max(this.#time, Math.floor(time))
    this.#insert.run(index, seq, total, this.#time, rowCheck(index, seq, total, this.#time, text), text)
    this.#last = index
    this.#seq = seq
    this.#total = total
  }

  #recall(key: string): { digest: number; indexes: number[] } | undefined {
    const row = this.#findKey.get(key) as { digest: number; indexes: string; crc: number } | undefined
    if (!row || row.crc !== keyCheck(key, row.digest, row.indexes)) return undefined
    return { digest: row.digest, indexes: JSON.parse(row.indexes) }
  }

  #remember(key: string, digest: number, indexes: readonly number[]): void {
    const text = JSON.stringify(indexes)
    this.#insertKey.run(key, digest, text, keyCheck(key, digest, text))
    this.#keyCount++
    if (this.#keyCount <= keyWindow + sliceLength) return
    this.#db.exec(`DELETE FROM keys WHERE n <= (SELECT max(n) FROM keys) - ${keyWindow}`)
    this.#keyCount = keyWindow
  }

  /** Each limit may be passed by a 64th before a slice goes: to remove one for each that comes would cost a page a time. */
  #trim(now: number, most: number): void {
    const { capacity, maxBytes, maxAge } = this.#options
    const { floor, floor_seq, floor_total } = this.#state
    const kept = this.#seq - floor_seq
    const bytes = this.#total - floor_total
    const isOver = kept > capacity + Math.floor(capacity / 64) || bytes > maxBytes + Math.floor(maxBytes / 64)
    if (!isOver && maxAge === Number.POSITIVE_INFINITY) return
    let newest: RowHead = { idx: floor, seq: floor_seq, total: floor_total, time: 0 }
    let row: RowHead | undefined
    let seen = 0
    let removed = 0
    for (const next of this.#heads(floor, most + 1)) {
      // One that does not stand between its neighbours is damaged: removing up to its index could take any others.
      if (row && isBefore(newest, row) && isBefore(row, next)) {
        const isExcess = this.#seq - newest.seq > capacity || this.#total - newest.total > maxBytes
        if (!(isOver && isExcess) && !(now - row.time > maxAge)) break
        newest = row
        removed = seen
      }
      row = next
      seen++
    }
    if (removed === 0) return
    const { changes } = this.#remove.run(newest.idx)
    // It ended at an index that a flip made too high.
    if (changes < removed) this.#removeEach(floor, newest.idx, removed)
    Object.assign(this.#state, { floor: newest.idx, floor_seq: newest.seq, floor_total: newest.total })
    this.#saveState()
  }

  /** The oldest rows; if these are all, then what the next one would be. */
  *#heads(floor: number, most: number): Generator<RowHead> {
    let count = 0
    for (const row of rowsOf<RowHead>(this.#oldest, floor, most)) {
      yield row
      count++
    }
    if (count < most) yield { idx: this.#last + 1, seq: this.#seq + 1, total: this.#total, time: this.#time }
  }

  #removeEach(floor: number, upTo: number, count: number): void {
    const remove = this.#db.prepare('DELETE FROM batches WHERE idx = ?')
    const rows = this.#oldest.all(floor, count) as unknown as RowHead[]
    for (const { idx } of rows) if (idx <= upTo) remove.run(idx)
  }

  #saveState(): void {
    const { epoch, durability, floor, floor_seq, floor_total, last, last_seq } = this.#state
    const check = stateCheck(this.#state)
    this.#setState.run(epoch, durability, floor, floor_seq, floor_total, last, last_seq, check)
  }

  /** Goes on after `row`, or after the floor where nothing is kept. */
  #standOn(row: RowHead | undefined): void {
    const { floor, floor_seq, floor_total } = this.#state
    this.#last = row?.idx ?? floor
    this.#seq = row?.seq ?? floor_seq
    this.#total = row?.total ?? floor_total
    this.#time = row?.time ?? 0
  }

  /** Compares the database with the mark, and moves on past what is not there: no index is given twice. */
  #findLoss(mark: Mark | undefined): Opened['lost'] {
    const state = this.#state
    if (state.last > this.#last) {
      this.#last = state.last
      this.#seq = state.last_seq
    }
    const after = this.#last
    const wasCut = mark && !mark.isClosed && (mark.boot !== this.#boot || mark.boot === '')
    let isChanged = state.durability !== this.#options.durability
    let lost: Opened['lost']
    if (mark && mark.last > after) {
      lost = { after, last: mark.last }
      this.#last = state.last = mark.last
      this.#seq = state.last_seq = Math.max(mark.seq, this.#seq) + 1
      isChanged = true
    } else if (this.#last > 0 && (!mark || (wasCut && state.durability === 'process'))) {
      // More may have been acknowledged than is here: the machine may have lost what only the process was promised to survive,
      // and a file without its mark may be an old copy. Those indexes must not come back with other batches under the same
      // epoch.
      state.epoch = newEpoch(Date.now())
      isChanged = true
    }
    state.durability = this.#options.durability
    if (isChanged) this.#saveState()
    return lost
  }

  #writeMark(isClosed: boolean): void {
    const { epoch } = this.#state
    this.#mark.write({ epoch, last: this.#last, seq: this.#seq, isClosed, boot: this.#boot, pid: process.pid })
  }

  #rollBack(): void {
    try {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK')
    } catch {
      // SQLite has rolled back by itself.
    }
  }

  /** A full disk may have room again. After any other failure nobody knows what is on the disk: no more writes before it was opened anew. */
  #failed(error: unknown): SpillwayError {
    const { errcode, message } = error as { errcode?: number; message: string }
    const { path } = this.#options
    if (errcode === full || errcode === sharedMemoryFull) {
      return new SpillwayError('LOG_FAILED', `There is no room to write to ${path}: ${message}.`)
    }
    this.#failure = `Writing to ${path} failed (${message}), so it takes no more until it was opened anew.`
    return new SpillwayError('LOG_FAILED', this.#failure)
  }
}

type RowHead = Pick<Row, 'idx' | 'seq' | 'total' | 'time'>

function isBefore(one: RowHead, next: RowHead): boolean {
  return one.idx < next.idx && one.seq < next.seq && one.total <= next.total && one.time <= next.time
}

/** A lock that ends with the process, however it ends: SQLite's, on a database of its own that stays empty. */
export function lock(path: string): DatabaseSync {
  let db: DatabaseSync | undefined
  try {
    // Without a lock file nobody has it open, and a file that is not ours is to get no neighbour. With one, looking first
    // would drop the locks of another connection of this process: closing a file does that.
    if (!existsSync(`${path}-lock`) && existsSync(path)) checkHeader(path)
    db = new DatabaseSync(`${path}-lock`)
    db.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE')
    return db
  } catch (cause) {
    db?.close()
    if ((cause as { errcode?: number }).errcode !== busy) throw problem(cause, path)
    const message = `${path} is in use by another process. Stop it, or choose another path; one log has one writer.`
    throw new SpillwayError('LOG_UNUSABLE', message, { cause })
  }
}

function checkTime(time: number): void {
  if (time <= latestTime) return
  throw new SpillwayError(
    'INVALID',
    `The time of a batch must be at most ${latestTime} Unix milliseconds, got ${time}.`,
  )
}

/** Where a log is made before it takes its place. */
export function unfinishedImport(path: string): string {
  return `${path}-import`
}

export function removeLog(file: string): void {
  for (const end of ['', '-wal', '-shm', '-lock', '-lock-journal', '-mark', '-new']) rmSync(file + end, { force: true })
}

/** SQLite would play the journal of a file that was removed into the new one: its old batches would take the place of the new. */
export function checkNoJournal(path: string): void {
  const journal = `${path}-wal`
  if (!existsSync(journal) || statSync(journal).size === 0) return
  const message = `${journal} is left of a file that is not there. Put that back, or move its journal away.`
  throw new SpillwayError('LOG_UNUSABLE', message)
}

/** Made under another name: a file that was begun and not finished must not be taken for a log. */
function create(path: string, durability: string): void {
  checkNoJournal(path)
  const unfinished = `${path}-new`
  rmSync(unfinished, { force: true })
  const db = new DatabaseSync(unfinished)
  const state = {
    epoch: newEpoch(Date.now()),
    durability,
    floor: 0,
    floor_seq: 0,
    floor_total: 0,
    last: 0,
    last_seq: 0,
  }
  db.exec(`BEGIN; ${schema} COMMIT`)
  db.prepare('INSERT INTO state VALUES (1, ?, ?, 0, 0, 0, 0, 0, ?)').run(state.epoch, durability, stateCheck(state))
  db.exec('PRAGMA journal_mode = WAL')
  db.close()
  renameSync(unfinished, path)
}

/** Looks without writing: SQLite would copy the journal into a file that is refused when its connection ends. */
function examine(path: string): void {
  const pageSize = checkHeader(path)
  const journal = `${path}-wal`
  // A journal may complete the last page. Without one, SQLite would take what is missing for zeros and write on behind it.
  if (statSync(path).size % pageSize !== 0 && !(existsSync(journal) && statSync(journal).size > 0)) {
    throw new SpillwayError('LOG_CORRUPT', `${path} ends within a page: it was cut.`)
  }
  const db = new DatabaseSync(path, { readOnly: true })
  try {
    db.exec(patience)
    checkSchema(db)
    new Table(db).state()
  } finally {
    db.close()
  }
}

export function problem(error: unknown, path: string): SpillwayError {
  if (error instanceof SpillwayError) return error
  const { message } = error as Error
  if (isCorrupt(error)) {
    return new SpillwayError('LOG_CORRUPT', `${path} is damaged: ${message}.`, { cause: error })
  }
  return new SpillwayError('LOG_UNUSABLE', `Cannot open ${shown(path)} to write: ${message}.`, { cause: error })
}
