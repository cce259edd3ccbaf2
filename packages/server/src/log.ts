import { pino } from 'pino'
import { paintFor, plain } from './terminal.ts'

/** What the server has to tell its operator. */
export interface ServerLog {
  info(message: string, fields?: LogFields): void
  warn(message: string, fields?: LogFields): void
  error(message: string, fields?: LogFields): void
}

/** What belongs to a message. `error` is shown with its causes. */
export type LogFields = Readonly<Record<string, unknown>> & { readonly error?: unknown }

/** A log that nobody reads. */
export const silentLog: ServerLog = { info() {}, warn() {}, error() {} }

/** One JSON object a line on standard output, for machines. */
export function jsonLog(): ServerLog {
  // Not buffered: the last line before an exit counts most.
  const output = pino.destination({ fd: 1, sync: true })
  const logger = pino(
    {
      timestamp: pino.stdTimeFunctions.isoTime,
      base: { pid: process.pid },
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: pino.stdSerializers.errWithCause },
    },
    { write: (line: string) => void output.write(escaped(line)) },
  )
  return {
    info: (message, fields = {}) => logger.info(fields, message),
    warn: (message, fields = {}) => logger.warn(fields, message),
    error: (message, fields = {}) => logger.error(fields, message),
  }
}

/** JSON escapes C0 only. Whoever looks at the file in a terminal must not meet C1 or what turns the direction of writing. */
function escaped(line: string): string {
  const unitEscape = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`
  return line.replace(/[\u007f-\u009f\p{Cf}\u2028\u2029]/gu, (found) => found.replace(/[\s\S]/g, unitEscape))
}

/** Short lines on standard error, for people. */
export function humanLog(): ServerLog {
  const paint = paintFor(process.stderr)
  const write = (level: string, message: string, { error }: LogFields = {}) => {
    const time = new Date().toISOString().slice(11, 19)
    const reason = error === undefined ? '' : `: ${reasons(error)}`
    process.stderr.write(`${paint('dim', time)} ${level}${plain(message + reason)}\n`)
  }
  return {
    info: (message, fields) => write('', message, fields),
    warn: (message, fields) => write(paint('yellow', 'warning: '), message, fields),
    error: (message, fields) => write(paint('red', 'error: '), message, fields),
  }
}

/** The messages of an error and of what caused it. */
export function reasons(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.cause === undefined ? error.message : `${error.message} (${reasons(error.cause)})`
}
