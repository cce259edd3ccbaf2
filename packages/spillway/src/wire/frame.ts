import type { SpillwayError } from '../core/errors.ts'
import type { Gap, StoredEvent } from '../core/event.ts'

// One message is one line of JSON. NDJSON sends it with a line break, SSE as the data of one block.

/** The first message: where the reader stands, so that it can resume before it has seen any event. */
export function openFrame(cursor: string, oldest: number | undefined, newest: number): string {
  return JSON.stringify({ open: { cursor, oldest: oldest ?? null, newest } })
}

/** A batch, whole or reduced to some of its events, each made by {@link eventText}. */
export function batchFrame(index: number, cursor: string, events: readonly string[]): string {
  return `{"index":${index},"cursor":${JSON.stringify(cursor)},"events":[${events.join(',')}]}`
}

export function eventText({ topic, type, key, namespace, filterKeys, payloadText }: StoredEvent): string {
  const names = JSON.stringify({ topic, type, key, namespace, filterKeys })
  return `${names.slice(0, -1)},"payload":${payloadText}}`
}

/** A loss: `reset` if the reader's cursor belongs to another history, else `gap`. */
export function gapFrame(gap: Gap, cursor: string): string {
  return JSON.stringify({ [gapName(gap)]: { ...gap, cursor } })
}

/** What a loss is called on the wire. */
export function gapName({ reason }: Gap): 'gap' | 'reset' {
  return reason === 'epoch' ? 'reset' : 'gap'
}

/** A sign of life that carries the position on. */
export function progressFrame(cursor: string): string {
  return JSON.stringify({ progress: { cursor } })
}

/** The last message. `retry`: milliseconds after which coming back may help, `null` if it will not. */
export function closedFrame({ code, message, retryable }: SpillwayError, cursor: string, retry: number): string {
  return JSON.stringify({ closed: { code, message, retry: retryable ? retry : null, cursor } })
}
