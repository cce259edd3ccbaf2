import { SpillwayError } from '../core/errors.ts'
import { encodeEvents, type PendingBatch } from '../core/event.ts'
import { type HistoryBatch, latestTime } from '../core/log.ts'
import { parseBatch } from './publish.ts'

/** A batch as one line of JSON without its end, payloads as they were published. {@link parseHistoryLine} reads it. */
export function formatHistoryLine({ index, time, events }: HistoryBatch): string {
  const texts = events.map(({ topic, type, key, namespace, filterKeys, payloadText }) => {
    const names = JSON.stringify({ topic, type, key, namespace, filterKeys })
    return `${names.slice(0, -1)},"payload":${payloadText}}`
  })
  return `{"index":${index},"time":${time},"events":[${texts.join(',')}]}`
}

const lineFields = ['index', 'time', 'events']

/** Reads what {@link formatHistoryLine} wrote, ready to be appended. Throws `INVALID`; `at` is how it calls the line. */
export function parseHistoryLine(
  text: string,
  at: string,
): PendingBatch & { readonly index: number; readonly time: number } {
  const { index, events } = parseBatch(text, at, lineFields)
  if (index === undefined) throw new SpillwayError('INVALID', `${at} has no index.`)
  const { time } = JSON.parse(text) as { time?: unknown }
  if (!Number.isSafeInteger(time) || (time as number) < 0 || (time as number) > latestTime) {
    throw new SpillwayError('INVALID', `${at} has no time in Unix milliseconds.`)
  }
  if (events.length === 0) throw new SpillwayError('INVALID', `${at} has no events.`)
  return { ...encodeEvents(events, index, at), index, time: time as number }
}
