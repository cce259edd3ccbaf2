import { invalid } from './errors.ts'

/** A position in one history: everything up to and with `index` has been read. */
export interface Cursor {
  readonly epoch: string
  readonly index: number
}

// An epoch is what newEpoch makes; logs over other engines may use any 1 to 64 letters, digits, "-" and "_".
const pattern = /^([A-Za-z0-9_-]{1,64}):(0|[1-9][0-9]{0,15})$/

/** A cursor as text: opaque to users, safe in headers, URLs and SSE ids. */
export function formatCursor(epoch: string, index: number): string {
  return `${epoch}:${index}`
}

/** Reads what {@link formatCursor} wrote. Cursors come from strangers: throws `INVALID` for anything else. */
export function parseCursor(text: string): Cursor {
  const match = typeof text === 'string' && text.length <= 96 ? pattern.exec(text) : null
  const index = Number(match?.[2])
  if (!match?.[1] || !Number.isSafeInteger(index)) {
    throw invalid('cursor', 'be one that this server or broker gave out', text)
  }
  return { epoch: match[1], index }
}

/** The identity of a new history: its time and 52 random bits. Two histories must not share one by accident; it is no secret. */
export function newEpoch(now: number): string {
  return `${now.toString(36)}-${Math.floor(Math.random() * 2 ** 52).toString(36)}`
}
