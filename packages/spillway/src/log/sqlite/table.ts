import { closeSync, openSync, readSync } from 'node:fs'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { crc32 } from 'node:zlib'
import { SpillwayError } from '../../core/errors.ts'
import type { LogStart } from '../../core/log.ts'

/** Written into the header of the file, where `file` and we look for it: "Spwy". */
const applicationId = 0x53707779
/** Grows when a program of before could not read the file. */
const formatVersion = 1

/**
 * The format. One batch is one row, its events as text (as a BLOB it took four times as long to read): `seq` counts batches
 * and shows that none is missing between two rows, `total` counts the bytes of `data` up to and with this row, `time` never
 * falls, `crc` covers all of it.
 * `state` has one row. `last` and `last_seq` stand behind what was lost, if anything was: no index up to them is given again.
 */
export const schema: string = `
  CREATE TABLE batches (idx INTEGER PRIMARY KEY, seq INTEGER NOT NULL, total INTEGER NOT NULL, time INTEGER NOT NULL,
    crc INTEGER NOT NULL, data TEXT NOT NULL) STRICT;
  CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), epoch TEXT NOT NULL, durability TEXT NOT NULL,
    floor INTEGER NOT NULL, floor_seq INTEGER NOT NULL, floor_total INTEGER NOT NULL,
    last INTEGER NOT NULL, last_seq INTEGER NOT NULL, crc INTEGER NOT NULL) STRICT;
  CREATE TABLE keys (n INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, digest INTEGER NOT NULL, indexes TEXT NOT NULL,
    crc INTEGER NOT NULL) STRICT;
  PRAGMA application_id = ${applicationId};
  PRAGMA user_version = ${formatVersion};
`

/** Of a whole {@link Row}. */
export const columns = 'idx, seq, total, time, crc, data'

/** A batch as it is kept. */
export interface Row {
  readonly idx: number
  readonly seq: number
  readonly total: number
  readonly time: number
  readonly crc: number
  readonly data: string
}

export interface State {
  epoch: string
  durability: string
  floor: number
  floor_seq: number
  floor_total: number
  last: number
  last_seq: number
}

/** Rows after an index, in order. */
export interface RowPage {
  readonly floor: number
  /** See `LogPage.lost`. */
  readonly lost: number
  readonly rows: readonly Row[]
}

/** How many rows are read in one step. */
const firstStep = 16
const longestStep = 512
/** How many of the newest rows are looked for when a log is opened: more than a page has of the smallest. */
const tailLength = 256

const head = new Float64Array(4)
const headBytes = new Uint8Array(head.buffer)

/** Whether a row is what was written. SQLite does not look at types when it reads: a flipped bit can change them as well. */
export function isWhole({ idx, seq, total, time, crc, data }: Row): boolean {
  const isTyped = typeof data === 'string' && [idx, seq, total, time].every(Number.isSafeInteger)
  return isTyped && crc === rowCheck(idx, seq, total, time, data)
}

export function rowCheck(idx: number, seq: number, total: number, time: number, data: string): number {
  head[0] = idx
  head[1] = seq
  head[2] = total
  head[3] = time
  // Bytes that are no UTF-8 come as replacements, whose check differs.
  return crc32(data, crc32(headBytes))
}

/** Of a remembered key: a damaged row must not answer with an index that was never given. */
export function keyCheck(key: string, digest: number, indexes: string): number {
  return crc32(`${key}\n${digest}\n${indexes}`)
}

export function stateCheck(state: State): number {
  const { epoch, durability, floor, floor_seq, floor_total, last, last_seq } = state
  return crc32(JSON.stringify([epoch, durability, floor, floor_seq, floor_total, last, last_seq]))
}

/** Opening and closing lock the whole file for a moment. */
export const patience = 'PRAGMA busy_timeout = 2000;'

/** Throws `LOG_UNUSABLE` for a file that is not a log of a version that we know. Reads it only. Gives the size of its pages in bytes. */
export function checkHeader(path: string): number {
  const header = Buffer.alloc(100)
  const file = openSync(path, 'r')
  const size = readSync(file, header, 0, 100, 0)
  closeSync(file)
  const isDatabase = size === 100 && header.toString('latin1', 0, 16) === 'SQLite format 3\0'
  if (!isDatabase || header.readUInt32BE(68) !== applicationId) {
    throw new SpillwayError('LOG_UNUSABLE', `${path} is not a log of Spillway.`)
  }
  const version = header.readUInt32BE(60)
  if (version > formatVersion) {
    const message = `${path} has format ${version}, this Spillway knows up to ${formatVersion}. Use a newer one.`
    throw new SpillwayError('LOG_UNUSABLE', message)
  }
  const pageSize = header.readUInt16BE(16)
  return pageSize === 1 ? 65_536 : Math.max(pageSize, 512)
}

/** Throws `LOG_CORRUPT` for a file whose tables are not {@link schema}: its rows would be read as something else. */
export function checkSchema(db: DatabaseSync): void {
  const ours = new DatabaseSync(':memory:')
  ours.exec(schema)
  const [wanted, found] = [ours, db].map((one) => JSON.stringify(one.prepare(schemaText).all()))
  ours.close()
  if (found !== wanted) throw new SpillwayError('LOG_CORRUPT', 'What the file says of its tables is damaged.')
}

const schemaText = 'SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name'

/** Whether what SQLite threw says that the file is damaged: its own codes, or a number that no column ever had. */
export function isCorrupt(error: unknown): boolean {
  const { code, errcode = 0 } = error as { code?: string; errcode?: number }
  return code === 'ERR_OUT_OF_RANGE' || [11, 26].includes(errcode & 0xff)
}

/** Rows as they come, of the columns that the statement names. */
export function rowsOf<T>(statement: StatementSync, ...values: readonly number[]): Iterable<T> {
  return statement.iterate(...values) as Iterable<unknown> as Iterable<T>
}

/** Runs `read` in one transaction, so that all of it sees the same. */
export function snapshot<T>(db: DatabaseSync, read: () => T): T {
  db.exec('BEGIN')
  try {
    return read()
  } finally {
    // Not COMMIT: it repeats the error of a statement that met damage, and the transaction stays open.
    db.exec('ROLLBACK')
  }
}

/** Reads of the tables. Nothing that was damaged is taken for a batch, and no row that is missing goes unnoticed. */
export class Table {
  readonly #db: DatabaseSync
  readonly #state: StatementSync
  readonly #upTo: StatementSync
  readonly #after: StatementSync
  readonly #newest: StatementSync
  readonly #from: StatementSync

  constructor(db: DatabaseSync) {
    this.#db = db
    this.#state = db.prepare('SELECT * FROM state')
    this.#upTo = db.prepare(`SELECT ${columns} FROM batches WHERE idx <= ? ORDER BY idx DESC LIMIT 1`)
    this.#after = db.prepare(`SELECT ${columns} FROM batches WHERE idx > ? ORDER BY idx LIMIT ?`)
    this.#newest = db.prepare(`SELECT ${columns} FROM batches ORDER BY idx DESC`)
    this.#from = db.prepare(`SELECT ${columns} FROM batches WHERE idx >= ? ORDER BY idx`)
  }

  /** Throws `LOG_CORRUPT`. */
  state(): State {
    const row = this.#state.get() as unknown as (State & { crc: number }) | undefined
    if (row && row.crc === stateCheck(row)) return row
    throw new SpillwayError('LOG_CORRUPT', 'The state of the log is damaged.')
  }

  /** The newest batch that is whole, and the highest index that a damaged row behind it seems to have. */
  newest(): { row: Row | undefined; damaged: number | undefined } {
    let damaged: number | undefined
    for (const row of rowsOf<Row>(this.#newest)) {
      if (isWhole(row)) return { row, damaged }
      damaged = Math.max(damaged ?? 0, row.idx)
    }
    return { row: undefined, damaged }
  }

  /**
   * Throws `LOG_CORRUPT` where the newest rows are not found by their index: what is appended behind them might not be found
   * either. SQLite keeps no checks of its own, so a flipped bit can send its searches astray.
   */
  checkTail(): void {
    const tail = this.#db.prepare('SELECT idx FROM batches ORDER BY idx DESC LIMIT ?')
    const one = this.#db.prepare('SELECT 1 FROM batches WHERE idx = ?')
    let next = Number.POSITIVE_INFINITY
    for (const { idx } of rowsOf<Pick<Row, 'idx'>>(tail, tailLength)) {
      if (idx >= next || !one.get(idx)) {
        throw new SpillwayError('LOG_CORRUPT', `The table of batches is damaged at index ${idx}.`)
      }
      next = idx
    }
  }

  /** At most `limit` rows and about `maxBytes`, but one at least if there is one. `last` is the newest index that was acknowledged. */
  read(after: number, limit: number, maxBytes: number, last: number): RowPage {
    return snapshot(this.#db, () => this.#read(after, limit, maxBytes, last))
  }

  /** The index that a reader starts after. */
  locate(start: LogStart): number {
    const { floor, last } = this.state()
    const { row: newest } = this.newest()
    if (!newest) return Math.max(floor, last)
    const isBefore: (row: { seq: number; time: number }) => boolean =
      'last' in start ? ({ seq }) => seq <= newest.seq - start.last : ({ time }) => time < start.since
    // `low` is before the start, and what follows `high` is not.
    let low = floor
    let high = newest.idx
    while (low < high) {
      const middle = low + Math.ceil((high - low) / 2)
      const row = this.#wholeFrom(middle)
      if (row && row.idx <= high && isBefore(row)) low = row.idx
      else high = middle - 1
    }
    return low
  }

  #wholeFrom(index: number): Row | undefined {
    for (const row of rowsOf<Row>(this.#from, index)) {
      if (isWhole(row)) return row
    }
    return undefined
  }

  #read(after: number, limit: number, maxBytes: number, last: number): RowPage {
    const state = this.state()
    const start = Math.max(after, state.floor)
    const rows: Row[] = []
    let lost = 0
    let expected = this.#seqAt(start, state) + 1
    let at = start
    let bytes = 0
    for (const row of this.#rowsAfter(start, limit, maxBytes)) {
      const isDamaged = !isWhole(row)
      // One that was to be removed and stands behind a damaged one.
      if (!isDamaged && row.idx <= start) continue
      if (!isDamaged && row.idx <= at) {
        throw new SpillwayError('LOG_CORRUPT', `The log has index ${row.idx} after ${at}.`)
      }
      // Told at the start of a page of its own.
      if ((isDamaged || row.seq !== expected) && rows.length > 0) break
      if (isDamaged) {
        // Its index cannot be believed either: the next row that is whole says up to where.
        expected = Number.NaN
        continue
      }
      if (row.seq !== expected) lost = row.idx - 1
      rows.push(row)
      at = row.idx
      expected = row.seq + 1
      bytes += row.data.length
      if (rows.length >= limit || bytes >= maxBytes) break
    }
    if (rows.length === 0 && last > start) lost = last
    return { floor: state.floor, lost, rows }
  }

  /** In steps, each as long as what came before says that a page takes: a call for each row costs twice as much. */
  *#rowsAfter(start: number, limit: number, maxBytes: number): Generator<Row> {
    let at = start
    let step = firstStep
    for (;;) {
      const rows = this.#after.all(at, Math.min(step, limit)) as unknown as Row[]
      yield* rows
      const last = rows.at(-1)
      if (!last || rows.length < Math.min(step, limit)) return
      if (!isWhole(last) || last.idx <= at) {
        // It is not where its index says: on from where it stands.
        let seen = 0
        for (const row of rowsOf<Row>(this.#after, at, -1)) if (seen++ >= rows.length) yield row
        return
      }
      at = last.idx
      const bytes = rows.reduce((sum, { data }) => sum + (data?.length || 0), 1)
      step = Math.max(1, Math.min(Math.floor((maxBytes / bytes) * rows.length), longestStep))
    }
  }

  /** The sequence number of the newest batch up to `index`, kept or not. NaN: it is damaged, so nobody can say. */
  #seqAt(index: number, { floor, floor_seq, last, last_seq }: State): number {
    const row = this.#upTo.get(index) as unknown as Row | undefined
    const [at, seq] = last <= index && last > floor ? [last, last_seq] : [floor, floor_seq]
    if (!row || row.idx <= at) return seq
    return isWhole(row) && row.idx <= index ? row.seq : Number.NaN
  }
}
