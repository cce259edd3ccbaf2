import { decodeBatch, fieldEndBytes } from '../../core/batch-text.ts'
import type { Clock } from '../../core/clock.ts'
import { newEpoch } from '../../core/cursor.ts'
import { StoredBatch } from '../../core/event.ts'
import type { LogStart, RightsChange } from '../../core/log.ts'
import { type PostgresClient, rowsOf, type TextRow, within } from './client.ts'
import type { Names } from './tables.ts'

/** What an acknowledged append survives, see `PostgresLogOptions.durability`. */
export type Durability = 'process' | 'power' | 'machine'

/** The largest safe integer: no limit. */
export interface Limits {
  readonly capacity: number
  readonly maxBytes: number
  readonly maxAge: number
}

/** A log's tables, as one server uses them. */
export interface Opened {
  readonly client: PostgresClient
  readonly names: Names
  readonly epoch: string
  readonly durability: Durability
  readonly limits: Limits
  /** Whose time is stored; absent: the database's. */
  readonly clock: Clock | undefined
}

/** Where a history stood when it was looked at. */
export interface Standing {
  readonly epoch: string
  readonly floor: number
  readonly last: number
  /** How many changes of rights it has had. */
  readonly changes: number
}

/** A batch with what shows that it is in its place. */
export interface Row {
  readonly batch: StoredBatch
  /** The index of the batch before it. */
  readonly previous: number
  /** Tells it from another one under the same index. Absent unless it was asked for. */
  readonly mark: string | undefined
}

export interface Rows extends Standing {
  /** Made when it is read for the first time. */
  readonly rows: readonly Row[]
  /** The index of the last of them; 0 if there is none. */
  readonly end: number
  /** The mark of the batch that was asked for, if it is there. */
  readonly anchor: string | undefined
}

/** A change of rights, after which index it stands, and which server made it. */
export interface NumberedChange extends RightsChange {
  readonly n: number
  readonly after: number
  readonly writer: string
}

/** What became of the appends of one statement. */
export interface Answer {
  readonly floor: number
  /** The newest index before it, and after it. */
  readonly base: number
  readonly last: number
  readonly changes: number
  /** Of the newest batch. */
  readonly mark: string
  /** Absent: all were stored, one behind the other. */
  readonly outcomes: Outcomes | undefined
}

export interface Outcomes {
  /** One letter an append: `S`tored, `D`uplicate, `K`ey reused, `M`ismatch, out of `O`rder. */
  readonly codes: string
  /** For each the newest index before it; of a duplicate, before its first. */
  readonly values: readonly number[]
}

/** Batches that go in one statement. */
export interface Group {
  readonly sizes: readonly number[]
  readonly texts: string
  /** Absent: whatever the log has, each gets the next index. */
  readonly conditions: Conditions | undefined
}

/** What appends of a group ask for, as the arrays that `append` of the tables takes. */
export interface Conditions {
  readonly leads: readonly number[]
  readonly firsts: readonly number[]
  readonly ends: readonly number[]
  readonly keys: readonly string[]
  readonly digests: readonly number[]
  readonly expected: readonly number[]
  readonly jobs: readonly number[]
  readonly at: readonly number[]
}

/** An append, as its server names it. */
export interface Numbered {
  readonly writer: string
  readonly number: number
  /** The newest index that was known when the statement was sent for the first time: it was not stored up to there. */
  readonly since: number
}

/** About how many bytes one page has: what a reader holds of the log at once. */
const pageBytes = 2 ** 20
/** How many rows of a page are looked at. */
const pageLengths = [1, 16, 256, 1024]

/**
 * The statement of a page: where the log stands, and then a row for each batch. Numbers are columns, since to join them as text
 * takes the database longer than it takes a client to read them; what is usual is NULL, which costs next to nothing.
 *
 * The inner limit comes before all else, so that no more rows are looked at than a page may have. It is no parameter: of one
 * the planner expects a tenth of the table, and so it would plan every page anew, and compile it. `upTo` stands outside: of a
 * range with two ends a database without statistics expects so few rows that it sorts all it finds, page after page.
 */
function pageOf({ state, batches }: Names, length: number, isMarked: boolean): string {
  const mark = isMarked ? "total || ' ' || time" : 'NULL'
  const anchor = isMarked ? `(SELECT ${mark} FROM ${batches} WHERE idx = $4::text::bigint)` : 'NULL'
  const next = `FROM ${batches} WHERE idx > greatest((SELECT floor FROM ${state}), $1::text::bigint) ORDER BY idx`
  return `
    SELECT epoch, floor::text, changes::text, greatest(floor, last, (SELECT max(idx) FROM ${batches}))::text, ${anchor}
    FROM ${state}
    UNION ALL
    SELECT * FROM (
      SELECT idx::text, nullif(previous, idx - 1)::text,
        nullif(bytes, octet_length(data) - ${fieldEndBytes})::text, ${mark}, data
      FROM (SELECT * ${next} LIMIT ${length}) AS next
      WHERE idx <= $2::text::bigint AND total - bytes < ${pageBytes} + (SELECT total - bytes ${next} LIMIT 1)
      LIMIT $3::text::bigint
    ) AS page`
}

class Page implements Rows {
  readonly epoch: string
  readonly floor: number
  readonly last: number
  readonly changes: number
  readonly anchor: string | undefined
  readonly end: number
  readonly #of: string
  #texts: readonly TextRow[]
  #rows: readonly Row[] = []

  /** `of`: the epoch of its batches, whose texts follow the head. */
  constructor(of: string, [epoch, floor, changes, last, mark]: TextRow, texts: readonly TextRow[]) {
    this.epoch = epoch as string
    this.floor = Number(floor)
    this.last = Number(last)
    this.changes = Number(changes)
    this.anchor = mark ?? undefined
    this.end = texts.length > 1 ? Number(texts.at(-1)?.[0]) : 0
    this.#of = of
    this.#texts = texts
  }

  get rows(): readonly Row[] {
    if (this.#texts.length > 0) this.#rows = this.#texts.slice(1).map((row) => rowOf(this.#of, row))
    this.#texts = []
    return this.#rows
  }
}

function rowOf(epoch: string, [place, before, bytes, mark, data]: TextRow): Row {
  const index = Number(place)
  const text = data as string
  const size = bytes === null ? Buffer.byteLength(text) - fieldEndBytes : Number(bytes)
  const batch = new StoredBatch(epoch, index, { events: decodeBatch(text), bytes: size })
  return { batch, previous: before === null ? index - 1 : Number(before), mark: mark ?? undefined }
}

/**
 * The statements of a log. Each is one, so that all that it answers was true at one moment; all reject with what the client
 * throws. Those that may be asked again whatever became of them reject once there is no answer for `patience` milliseconds.
 */
export class Database {
  readonly #opened: Opened
  readonly #patience: number
  readonly #pages: readonly (readonly [plain: string, marked: string])[]
  readonly #appends: readonly string[]

  constructor(opened: Opened, patience: number) {
    this.#opened = opened
    this.#patience = patience
    const { durability, limits } = opened
    const { append } = opened.names
    this.#pages = pageLengths.map((length) => [pageOf(opened.names, length, false), pageOf(opened.names, length, true)])
    // One batch, several, and with conditions: what is left out of a statement need not be made nor read.
    const one = 'text bigint uuid bigint bigint bigint bigint text'
    const several = `${one} bigint[]`
    const conditional = `${several} bigint[] bigint[] bigint[] text[] bigint[] bigint[] integer[] bigint[]`
    const bounds = `'${durability}', ${limits.capacity}, ${limits.maxBytes}, ${limits.maxAge}`
    this.#appends = [one, several, conditional].map((types) => {
      const parameters = types.split(' ').map((type, n) => `$${n + 1}::text::${type}`)
      return `SELECT ${append}(${bounds}, ${parameters.join(', ')})`
    })
  }

  /** Up to `limit` batches after `after` and up to `upTo`. With `anchor`, their marks, and that of the batch `anchor`. */
  read(after: number, upTo: number, limit: number, anchor?: number): Promise<Rows | undefined> {
    const [plain, marked] = this.#pages.at(pageLengths.findIndex((length) => limit <= length)) as [string, string]
    const values = [after, upTo, limit]
    const asked = anchor === undefined ? this.#ask(plain, values) : this.#ask(marked, [...values, anchor])
    return asked.then((rows) => (rows[0] ? new Page(this.#opened.epoch, rows[0], rows) : undefined))
  }

  /** Changes of rights after the one of number `after`, up to the one of number `upTo`. Old ones are forgotten. */
  async changes(after: number, upTo: number): Promise<NumberedChange[]> {
    const { rights } = this.#opened.names
    const rows = await this.#ask(
      `SELECT n::text, after::text, writer, change FROM ${rights}
        WHERE n > $1::text::bigint AND n <= $2::text::bigint ORDER BY n`,
      [after, upTo],
    )
    return rows.map(([n, place, writer, change]) => {
      const { subject, isRevoked } = JSON.parse(change as string)
      return { n: Number(n), after: Number(place), writer: writer as string, subject, isRevoked }
    })
  }

  /** Stores a group, unless it was stored before. `seen`: the newest index that is known. */
  append(append: Numbered, seen: number, { sizes, texts, conditions }: Group): Promise<Answer> {
    const size = sizes.reduce((sum, bytes) => sum + bytes, 0)
    const one = [...this.#headOf(append, seen), size, texts]
    if (!conditions && sizes.length === 1) return this.#append(0, one)
    const several = [...one, arrayText(sizes)]
    if (!conditions) return this.#append(1, several)
    const { leads, firsts, ends, keys, digests, expected, jobs, at } = conditions
    return this.#append(2, [...several, ...[leads, firsts, ends, keys, digests, expected, jobs, at].map(arrayText)])
  }

  /** Removes what is too old. */
  trim(writer: string): Promise<Answer> {
    return this.#append(0, [...this.#headOf({ writer, number: 0, since: 0 }, 0), 0, null])
  }

  #headOf({ writer, number, since }: Numbered, seen: number): (string | number | null)[] {
    return [this.#opened.epoch, this.#now(), writer, number, since, seen]
  }

  async #append(form: number, values: (string | number | null)[]): Promise<Answer> {
    const [row] = await this.#rows(this.#appends[form] as string, values)
    return answerOf(row?.[0] as string)
  }

  /** Moves committed batches of the outbox into the log, and says how many. */
  async relay(): Promise<number> {
    const { names, epoch, durability, limits } = this.#opened
    const { capacity, maxBytes, maxAge } = limits
    const call = `SELECT ${names.relay}($1, $2, $3::text::bigint, $4::text::bigint, $5::text::bigint, $6::text::bigint)::text`
    const [row] = await this.#ask(call, [epoch, durability, this.#now(), capacity, maxBytes, maxAge])
    return Number(row?.[0])
  }

  async announce(writer: string, change: RightsChange): Promise<void> {
    const { names, epoch } = this.#opened
    // What is undefined is left out.
    const text = JSON.stringify({ subject: change.subject, isRevoked: change.isRevoked })
    await this.#rows(`SELECT ${names.announce}($1, $2, $3)::text`, [epoch, writer, text])
  }

  async locate(start: LogStart): Promise<number> {
    const call = `SELECT ${this.#opened.names.locate}($1::text::bigint, $2::text::bigint)::text`
    const values = 'since' in start ? [start.since, null] : [null, start.last]
    const [row] = await this.#ask(call, values)
    return Number(row?.[0])
  }

  /** The history that was opened is not continued by what is there: what is there begins a new one. */
  async renew(): Promise<void> {
    const { names, epoch } = this.#opened
    await this.#rows(`UPDATE ${names.state} SET epoch = $1 WHERE epoch = $2`, [newEpoch(Date.now()), epoch])
  }

  /** Absent: the database knows it. */
  #now(): number | null {
    const { clock } = this.#opened
    return clock ? Math.floor(clock.now()) : null
  }

  #ask(query: string, values: readonly (string | number | null)[]): Promise<readonly TextRow[]> {
    return within(this.#patience, this.#rows(query, values))
  }

  #rows(query: string, values: readonly (string | number | null)[]): Promise<readonly TextRow[]> {
    const parameters = values.map((value) => (value === null ? null : String(value)))
    return rowsOf(this.#opened.client, query, parameters)
  }
}

/** An array of numbers or of hexadecimal digits, in which nothing needs an escape but that it is empty. */
function arrayText(values: readonly (string | number)[]): string {
  return `{${values.map((value) => (value === '' ? '""' : value)).join(',')}}`
}

/** Of `floor last total time base changes`, and behind them `codes values` of a group with conditions. */
function answerOf(text: string): Answer {
  const [floor, last, total, time, base, changes, codes, values] = text.split(' ')
  return {
    floor: Number(floor),
    base: Number(base),
    last: Number(last),
    changes: Number(changes),
    mark: `${total} ${time}`,
    outcomes: codes && values ? { codes, values: values.split(',').map(Number) } : undefined,
  }
}
