import { type Cursor, parseCursor } from '../core/cursor.ts'
import { type ErrorCode, errorTable, SpillwayError, shown } from '../core/errors.ts'
import type { Batch, Gap, StreamEvent } from '../core/event.ts'

/** What a stream says, one of these at a time. */
export type Message =
  /** Where the reader stands. `newest`: the newest index of the server, where it says so. */
  | (Placed & { readonly kind: 'position'; readonly newest: number })
  | (Placed & { readonly kind: 'batch'; readonly batch: Batch })
  | (Placed & { readonly kind: 'gap'; readonly gap: Gap })
  /** The last one. `retry`: milliseconds after which to come back. */
  | { readonly kind: 'closed'; readonly error: SpillwayError; readonly retry: number | undefined }

/** Everything up to there has been told. */
interface Placed {
  readonly cursor: string
  readonly at: Cursor
}

/** Makes messages of the text of a stream, wherever it is cut. Throws `PROTOCOL` or `TOO_LARGE` once it comes to what is wrong. */
export type Parser = (text: string) => Iterable<Message>

/** What a peer sent that is no message of the protocol. */
export function violation(what: string, cause?: unknown): SpillwayError {
  return new SpillwayError('PROTOCOL', `The stream is not what a Spillway server sends: ${what}.`, { cause })
}

/** One message a line. `limit`: UTF-16 units that a line may have. */
export function lineParser(limit: number): Parser {
  const lines = lineSplitter(limit, /\n/)
  return function* (text) {
    for (const line of lines(text)) {
      const message = line.trim() === '' ? undefined : parseFrame(line)
      if (message) yield message
    }
  }
}

/**
 * [WHATWG HTML, 9.2.6] Blocks of lines that end in CR, LF or CRLF. A block without data carries the position on.
 * `limit`: UTF-16 units that a line, or the data of a block, may have.
 */
export function blockParser(limit: number): Parser {
  const lines = lineSplitter(limit, /\r\n|\n|\r/)
  let endedInReturn = false
  let name = ''
  let data = ''
  let id: string | undefined
  const block = (): Message | undefined => {
    const message =
      data !== '' && ['', 'message', 'gap', 'reset', 'closed'].includes(name)
        ? parseFrame(data.slice(0, -1))
        : data === '' && id !== undefined
          ? position(id)
          : undefined
    name = ''
    data = ''
    id = undefined
    return message
  }
  const field = (line: string): void => {
    const [, called, value = ''] = /^([^:]*)(?:: ?)?(.*)$/s.exec(line) as RegExpExecArray
    if (called === 'event') name = value
    if (called === 'data') data += `${value}\n`
    if (called === 'id') id = value
    if (data.length > limit) throw tooLong(limit)
  }
  return function* (text) {
    if (text === '') return
    // The line feed of a pair that was cut in two ends no other line.
    const isPair = endedInReturn && text.startsWith('\n')
    endedInReturn = text.endsWith('\r')
    for (const line of lines(isPair ? text.slice(1) : text)) {
      if (line === '') {
        const message = block()
        if (message) yield message
        continue
      }
      field(line)
    }
  }
}

/** Whole lines of a text that comes in pieces. */
function lineSplitter(limit: number, lineBreak: RegExp): (text: string) => Iterable<string> {
  let pieces: string[] = []
  let length = 0
  return function* (text) {
    const lines = text.split(lineBreak)
    for (const [n, line] of lines.entries()) {
      length += line.length
      if (length > limit) throw tooLong(limit)
      pieces.push(line)
      if (n === lines.length - 1) return
      const whole = pieces.join('')
      pieces = []
      length = 0
      yield whole
    }
  }
}

function tooLong(limit: number): SpillwayError {
  return new SpillwayError('TOO_LARGE', `The stream has a message of more than ${limit} UTF-16 units (maxMessage).`)
}

/** One message of the protocol; `undefined` for one of a later version. Throws `PROTOCOL`. */
export function parseFrame(text: string): Message | undefined {
  const frame = parseJson(text)
  if (frame.events !== undefined) return batchOf(frame)
  if (isObject(frame.open)) return position(frame.open.cursor, frame.open.newest)
  if (isObject(frame.progress)) return position(frame.progress.cursor)
  const loss = frame.gap ?? frame.reset
  if (isObject(loss)) return lossOf(loss)
  if (isObject(frame.closed)) return closedOf(frame.closed)
  return undefined
}

function parseJson(text: string): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw violation(`a message is not JSON, ${shown(text)}`, cause)
  }
  if (isObject(value)) return value
  throw violation(`a message is not an object, ${shown(text)}`)
}

function position(cursor: unknown, newest: unknown = 0): Message {
  return { kind: 'position', ...placed(cursor), newest: isIndex(newest) ? newest : 0 }
}

function batchOf({ index, cursor, events }: Record<string, unknown>): Message {
  const where = placed(cursor)
  if (where.at.index !== index) throw violation(`the batch with cursor ${shown(cursor)} has index ${shown(index)}`)
  if (!Array.isArray(events) || !events.every(isEvent)) throw violation(`the events of index ${index} are none`)
  return { kind: 'batch', ...where, batch: { index, cursor: where.cursor, events } }
}

const reasons: readonly unknown[] = ['lag', 'retention', 'epoch', 'truncated', 'corrupt'] satisfies Gap['reason'][]

function lossOf({ after, before, reason, cursor }: Record<string, unknown>): Message {
  const where = placed(cursor)
  if (!isIndex(after) || before !== where.at.index + 1 || !reasons.includes(reason)) {
    throw violation(`a loss is ${shown({ after, before, reason, cursor })}`)
  }
  return { kind: 'gap', ...where, gap: { after, before, reason: reason as Gap['reason'] } }
}

function closedOf({ code, message, retry, cursor }: Record<string, unknown>): Message {
  // A code of a later version says at least whether coming back helps.
  const known = Object.hasOwn(errorTable, String(code)) ? (code as ErrorCode) : retry === null ? 'INTERNAL' : 'CLOSED'
  const error = new SpillwayError(known, String(message), typeof cursor === 'string' ? { cursor } : {})
  return { kind: 'closed', error, retry: isIndex(retry) ? retry : undefined }
}

function placed(cursor: unknown): Placed {
  try {
    return { cursor: cursor as string, at: parseCursor(cursor as string) }
  } catch (cause) {
    throw violation(`${shown(cursor)} is no cursor`, cause)
  }
}

function isEvent(value: unknown): value is StreamEvent {
  return isObject(value) && typeof value.topic === 'string' && typeof value.type === 'string'
}

function isIndex(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
