import type { SpillwayError } from '../core/errors.ts'
import type { Gap, StoredBatch, StoredEvent } from '../core/event.ts'
import { batchFrame, closedFrame, eventText, gapFrame, gapName, openFrame, progressFrame } from '../wire/frame.ts'
import { nomadBatch, nomadBookmark, nomadError, nomadEvent, nomadGap, nomadHeartbeat } from '../wire/ndjson.ts'
import { sseBlock, ssePosition } from '../wire/sse.ts'

/** Where a stream stands in its history. */
export interface Place {
  readonly cursor: string
  readonly oldest: number | undefined
  readonly newest: number
}

/** How a stream says things. Every message is whole, and ends where it says so. */
export interface Format {
  readonly contentType: string
  readonly cacheControl: string
  open(place: Place): string
  /** One event of the batch with this index. */
  event(event: StoredEvent, index: number): string
  /** `events`: all or some of the batch, as `event` gives them. */
  batch(batch: StoredBatch, events: readonly string[]): string
  gap(gap: Gap, cursor: string): string
  heartbeat(cursor: string, index: number): string
  closed(error: SpillwayError, cursor: string): string
}

/** Server-Sent Events. `retry`: milliseconds that a client waits before it reconnects. */
export function sseFormat(retry: number): Format {
  return {
    contentType: 'text/event-stream; charset=utf-8',
    cacheControl: 'no-cache, no-transform',
    open: ({ cursor }) => ssePosition(cursor, retry),
    event: eventText,
    batch: ({ index, cursor }, events) => sseBlock(cursor, batchFrame(index, cursor, events)),
    gap: (gap, cursor) => sseBlock(cursor, gapFrame(gap, cursor), gapName(gap)),
    heartbeat: (cursor) => ssePosition(cursor),
    closed: (error, cursor) => sseBlock(cursor, closedFrame(error, cursor, retry), 'closed'),
  }
}

/** One message a line. */
export function ndjsonFormat(retry: number): Format {
  return {
    contentType: 'application/x-ndjson; charset=utf-8',
    cacheControl: 'no-cache, no-transform',
    open: ({ cursor, oldest, newest }) => `${openFrame(cursor, oldest, newest)}\n`,
    event: eventText,
    batch: ({ index, cursor }, events) => `${batchFrame(index, cursor, events)}\n`,
    gap: (gap, cursor) => `${gapFrame(gap, cursor)}\n`,
    heartbeat: (cursor) => `${progressFrame(cursor)}\n`,
    closed: (error, cursor) => `${closedFrame(error, cursor, retry)}\n`,
  }
}

/** Nomad's event stream. With `bookmarks` its heartbeats tell the position, which its own clients do not expect. */
export function nomadFormat(bookmarks: boolean): Format {
  return {
    contentType: 'application/json',
    cacheControl: 'no-cache',
    open: () => nomadHeartbeat,
    event: (event, index) => nomadEvent(index, event),
    batch: ({ index }, events) => nomadBatch(index, events),
    gap: nomadGap,
    heartbeat: (_cursor, index) => (bookmarks ? nomadBookmark(index) : nomadHeartbeat),
    closed: nomadError,
  }
}
