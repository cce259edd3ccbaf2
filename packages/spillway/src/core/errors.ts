import type { Gap } from './event.ts'

/** Codes are stable; messages are for people and may change. {@link errorTable} says what each one means. */
export type ErrorCode =
  | 'CLOSED'
  | 'SHUTDOWN'
  | 'LAGGED'
  | 'STALLED'
  | 'LOG_FAILED'
  | 'RENEW'
  | 'OVERLOADED'
  | 'RATE_LIMITED'
  | 'UNREACHABLE'
  | 'INVALID'
  | 'CONFIG'
  | 'UNAUTHORIZED'
  | 'FORBIDDEN'
  | 'REVOKED'
  | 'EXPIRED'
  | 'NOT_FOUND'
  | 'METHOD'
  | 'NOT_ACCEPTABLE'
  | 'UNSUPPORTED_TYPE'
  | 'TOO_LARGE'
  | 'INDEX_ORDER'
  | 'INDEX_MISMATCH'
  | 'KEY_REUSED'
  | 'NOT_KEPT'
  | 'LOG_CORRUPT'
  | 'LOG_UNUSABLE'
  | 'PROTOCOL'
  | 'INTERNAL'

/** What a code means to whoever meets it: the answer on HTTP and WebSocket, and whether trying again can help. */
export interface ErrorInfo {
  /** HTTP status of a refusal. */
  readonly status: number
  /** WebSocket close code. 4000 to 4499: come back and resume. 4500 to 4999: the same attempt fails again. */
  readonly closeCode: number
  /** Whether the same call may succeed later, unchanged. */
  readonly retryable: boolean
  /** What to do, for a person. */
  readonly advice: string
}

function comeBack(closeCode: number, status: number, advice: string): ErrorInfo {
  return { status, closeCode, retryable: true, advice }
}

function giveUp(closeCode: number, status: number, advice: string): ErrorInfo {
  return { status, closeCode, retryable: false, advice }
}

/** Every code of a {@link SpillwayError}. `docs/errors.md` is generated from this table. */
export const errorTable: Readonly<Record<ErrorCode, ErrorInfo>> = {
  CLOSED: comeBack(4000, 503, 'This reader or broker was closed. Open a new subscription from the last cursor.'),
  SHUTDOWN: comeBack(
    4001,
    503,
    'The server is going away. Resubscribe with the last cursor; another or the restarted server goes on from it.',
  ),
  STALLED: comeBack(
    4003,
    503,
    'The connection took no bytes for the stall timeout. Read faster or ask for less, and resume with the last cursor.',
  ),
  LOG_FAILED: comeBack(
    4004,
    503,
    'The log could not store the events; none of them was published, unless the message says that it is not known. See the cause, then publish again, under the same id.',
  ),
  RENEW: comeBack(4005, 503, 'The stream reached its greatest age. Resume with the last cursor, at once.'),
  OVERLOADED: comeBack(
    4006,
    503,
    'The server has as many streams as it takes. Come back after the time that Retry-After gives.',
  ),
  RATE_LIMITED: comeBack(4008, 429, 'Publish less at once or less often, after the time that Retry-After gives.'),
  UNREACHABLE: comeBack(
    4007,
    503,
    'The server could not be reached, or the connection was lost. A client tries again by itself; look at the network and at what stands between.',
  ),
  INVALID: giveUp(4500, 400, 'Correct the field that the message names.'),
  CONFIG: giveUp(4501, 500, 'Correct the option that the message names.'),
  UNAUTHORIZED: giveUp(4510, 401, 'Send a valid token.'),
  FORBIDDEN: giveUp(4511, 403, 'Ask for access, or for less.'),
  REVOKED: giveUp(
    4512,
    403,
    'Access was withdrawn while the stream was open. Obtain new rights before you resubscribe.',
  ),
  EXPIRED: giveUp(
    4513,
    401,
    'The token reached the end of its life. Resubscribe with a fresh one from the last cursor.',
  ),
  NOT_FOUND: giveUp(4514, 404, 'Check the path.'),
  METHOD: giveUp(4515, 405, 'Use a method that the Allow header names.'),
  NOT_ACCEPTABLE: giveUp(4516, 406, 'Accept text/event-stream or application/x-ndjson.'),
  UNSUPPORTED_TYPE: giveUp(4517, 415, 'Send application/json or application/x-ndjson.'),
  TOO_LARGE: giveUp(4518, 413, 'Publish less at once, or raise the limit that the message names.'),
  INDEX_ORDER: giveUp(4519, 409, 'Publish with a larger index, or leave the index out.'),
  NOT_KEPT: giveUp(4520, 410, 'Start at an index that is kept, or without exact.'),
  LAGGED: giveUp(
    4521,
    410,
    'Batches were dropped before this reader saw them. Reload the state that they describe, then resume from the cursor of the gap, or subscribe with onLag "skip" to be told and go on.',
  ),
  INDEX_MISMATCH: giveUp(
    4522,
    409,
    'Somebody published meanwhile. Read on from the index you expected to the one the message names, decide anew, and publish with that one.',
  ),
  KEY_REUSED: giveUp(4523, 409, 'A key names one publish. Use a fresh one for other events.'),
  LOG_CORRUPT: giveUp(
    4524,
    500,
    'The file of the log is damaged beyond what can be told as a gap. Keep it, save what is whole with `spillway export`, and go on with a new file of that, or with a copy; readers of another history are told so.',
  ),
  LOG_UNUSABLE: giveUp(
    4525,
    500,
    'Correct what the message names about the file of the log, or the engine that keeps it. It was not touched.',
  ),
  PROTOCOL: giveUp(4526, 502, 'Look at what the url leads to: it must be a Spillway server, of a version that fits.'),
  INTERNAL: giveUp(4599, 500, 'This is a defect or a failed dependency of the server. Its log has the cause.'),
}

/** What {@link SpillwayError} may carry beside its message. */
export interface SpillwayErrorOptions {
  cause?: unknown
  /** The loss, for `LAGGED`. */
  gap?: Gap
  /** Where a reader that is refused or ended may resume. */
  cursor?: string
  /** The newest index, for `INDEX_MISMATCH`. */
  index?: number
}

/** A {@link SpillwayError} without its class; of the cause only what it says. */
export interface PlainSpillwayError extends Omit<SpillwayErrorOptions, 'cause'> {
  readonly code: ErrorCode
  readonly message: string
  readonly cause?: string
}

/** The one error class of Spillway. Decide by `code`; show `message`. */
export class SpillwayError extends Error {
  readonly code: ErrorCode
  /** The batches that may be missing, when `code` is `LAGGED`. */
  readonly gap: Gap | undefined
  /** The position to resume from, where one is known. */
  readonly cursor: string | undefined
  /** The newest index, when `code` is `INDEX_MISMATCH`. */
  readonly index: number | undefined

  constructor(code: ErrorCode, message: string, { cause, gap, cursor, index }: SpillwayErrorOptions = {}) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'SpillwayError'
    this.code = code
    this.gap = gap
    this.cursor = cursor
    this.index = index
  }

  /** What structured cloning and JSON leave whole, for another thread; {@link SpillwayError.from} reads it. */
  toJSON(): PlainSpillwayError {
    const { code, message, gap, cursor, index, cause } = this
    return {
      code,
      message,
      ...(gap && { gap }),
      ...(cursor !== undefined && { cursor }),
      ...(index !== undefined && { index }),
      ...(cause instanceof Error && { cause: cause.message }),
    }
  }

  /** The error that `toJSON` told of. */
  static from({ code, message, cause, ...rest }: PlainSpillwayError): SpillwayError {
    return new SpillwayError(code, message, cause === undefined ? rest : { ...rest, cause: new Error(cause) })
  }

  /** HTTP status of this error's code. */
  get status(): number {
    return errorTable[this.code].status
  }

  /** WebSocket close code of this error's code. */
  get closeCode(): number {
    return errorTable[this.code].closeCode
  }

  /** Whether the same call may succeed later, unchanged. */
  get retryable(): boolean {
    return errorTable[this.code].retryable
  }

  /** What to do, for a person. */
  get advice(): string {
    return errorTable[this.code].advice
  }
}

/** Bad input: what was looked at, what it must be or do, and what came. */
export function invalid(field: string, must: string, value: unknown): SpillwayError {
  return new SpillwayError('INVALID', `${field} must ${must}, got ${shown(value)}.`)
}

/** An option that is not what it must be. */
export function wrongOption(option: string, expected: string, value: unknown): SpillwayError {
  return new SpillwayError('CONFIG', `${option} must be ${expected}, got ${shown(value)}.`)
}

/** An option that counts. Throws `CONFIG` that names it unless `value` is an integer from `least` to `most`. */
export function integerOption(
  option: string,
  value: unknown,
  least: number,
  most: number = Number.MAX_SAFE_INTEGER,
): number {
  if (Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most) return value as number
  throw wrongOption(option, `an integer from ${least} to ${most}`, value)
}

/** `value` as a short piece of an error message: strangers' input must neither flood it nor break its line. */
export function shown(value: unknown): string {
  if (value === undefined) return 'undefined'
  if (typeof value === 'function') return 'a function'
  if (Array.isArray(value)) return `an array of ${value.length}`
  if (typeof value === 'object' && value !== null) return 'an object'
  if (typeof value === 'bigint') return `${String(value).slice(0, 60)}n`
  if (typeof value !== 'string' && typeof value !== 'symbol') return String(value)
  // JSON escapes C0 but not DEL and C1, which terminals obey.
  const text = JSON.stringify(String(value)).replace(
    /[\u007f-\u009f]/g,
    (char) => `\\u00${char.charCodeAt(0).toString(16)}`,
  )
  if (typeof value === 'symbol') return text.slice(1, 60).replace(/"$/, '')
  return text.length > 80 ? `${text.slice(0, 76)}..."` : text
}

/** A loss as an error, for readers that asked for one. `cursor`: where to go on. */
export function lagError(gap: Gap, cursor: string): SpillwayError {
  const missed = `Batches after index ${gap.after} and before ${gap.before} may be missing (${gap.reason}).`
  return new SpillwayError(
    'LAGGED',
    `${missed} Resume from the error's cursor, or subscribe with onLag "skip" to be told and go on.`,
    { gap, cursor },
  )
}
