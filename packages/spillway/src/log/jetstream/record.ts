import { numberAt } from './digits.ts'

/**
 * One message of a log's stream. Its subject ends in its kind; the header `Spillway` says, separated by spaces, the version
 * of this format, when it was stored in Unix milliseconds, which append it belongs to, its place among the records of that
 * append and how many those are, the index of the batch before it, or `-` if its writer could not know, and how many
 * messages its writer has sent behind it.
 *
 * An append is one record for each batch, and one for each number that it skips. It counts once its last record is there:
 * each record is stored only right behind the one before it, so an append that broke off has no last record.
 */
export interface StreamRecord {
  readonly seq: number
  readonly kind: RecordKind
  readonly head: RecordHead
  readonly data: Uint8Array
  readonly key?: RecordKey | undefined
}

/** What the last record of an append under a key says of it. */
export interface RecordKey {
  readonly name: string
  /** Tells repetitions from other appends. */
  readonly digest: string
}

/** `skipped`: a number that a publisher passed over, or that a writer took to have its turn. `lost`: one of which an import says that its batch is lost. */
export type RecordKind = 'batch' | 'rights' | 'skipped' | 'lost'

export interface RecordHead {
  readonly time: number
  /** Names the append, among all of all servers. */
  readonly append: string
  /** From 1 on. */
  readonly position: number
  readonly count: number
  /** `undefined`: any before it. */
  readonly previous: number | undefined
  /** Messages that were sent behind it before it was confirmed. */
  readonly left: number
}

export const headerName = 'Spillway'
/** Digest and name of a key, that as in a URL. */
export const keyHeader = 'Spillway-Key'
const version = '1'
const kinds: readonly string[] = ['batch', 'rights', 'skipped', 'lost'] satisfies RecordKind[]

export function formatHead({ time, append, position, count, previous, left }: RecordHead): string {
  return `${version} ${time} ${append} ${position} ${count} ${previous ?? '-'} ${left}`
}

/** `undefined`: this is no record of a log, or one of a later version. */
export function parseHead(text: string): RecordHead | undefined {
  const time = text.indexOf(' ') + 1
  const append = text.indexOf(' ', time) + 1
  const position = text.indexOf(' ', append) + 1
  const count = text.indexOf(' ', position) + 1
  const previous = text.indexOf(' ', count) + 1
  // Where a field is missing it goes round, and begins anew.
  const isWhole = time < append && append < position && position < count && count < previous
  if (!isWhole || text.slice(0, time - 1) !== version || position - append < 2) return undefined
  const left = text.indexOf(' ', previous) + 1
  const head = {
    time: numberAt(text, time),
    append: text.slice(append, position - 1),
    position: numberAt(text, position),
    count: numberAt(text, count),
    previous: text[previous] === '-' ? undefined : numberAt(text, previous),
    left: left === 0 ? 0 : numberAt(text, left),
  }
  const { position: at, count: of, previous: before = 0 } = head
  const isSound = at >= 1 && at <= of && Number.isSafeInteger(of) && head.time >= 0 && before >= 0 && head.left >= 0
  return isSound ? head : undefined
}

export function formatKey({ name, digest }: RecordKey): string {
  return `${digest} ${encodeURIComponent(name)}`
}

/** `undefined`: there is none, or it was not written by {@link formatKey}. */
export function parseKey(text: string): RecordKey | undefined {
  // Most messages have none, and a replay comes by here for each.
  if (text === '') return undefined
  const [digest, name] = text.split(' ')
  if (!digest || name === undefined) return undefined
  try {
    return { digest, name: decodeURIComponent(name) }
  } catch {
    return undefined
  }
}

/** What `subject` says; `undefined` if it is of no kind that is known. */
export function kindOf(subject: string): RecordKind | undefined {
  const kind = subject.slice(subject.lastIndexOf('.') + 1)
  return kinds.includes(kind) ? (kind as RecordKind) : undefined
}

/** Puts appends together from their records, which come in the order of the stream. */
export class Assembler<T extends Pick<StreamRecord, 'seq' | 'head'> = StreamRecord> {
  #parts: T[] = []

  /** The records of the append that `record` completes. */
  take(record: T): readonly T[] {
    const { append, position, count } = record.head
    const last = this.#parts.at(-1)
    const isNext =
      last && last.head.append === append && last.head.position === position - 1 && last.seq === record.seq - 1
    if (!isNext) {
      // What was there broke off.
      this.#parts = []
      if (position > 1) return []
    }
    if (count === 1) return [record]
    this.#parts.push(record)
    if (position < count) return []
    const whole = this.#parts
    this.#parts = []
    return whole
  }

  /** The records that wait for the rest of their append. */
  get open(): readonly T[] {
    return this.#parts
  }
}
