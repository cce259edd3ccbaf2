import { SpillwayError, shown } from '../../core/errors.ts'

export function asError(cause: unknown): Error {
  return cause instanceof Error ? cause : new Error(String(cause))
}

/** A failure of the engine as readers and publishers are told of it. */
export function engineFailure(what: string, cause: unknown): SpillwayError {
  return new SpillwayError('LOG_FAILED', `${what} ${shownError(cause)}`, { cause })
}

export function shownError(cause: unknown): string {
  const { message, name } = asError(cause)
  return `The engine says: ${shown(message || name)}.`
}
