import { StoredEvent } from './event.ts'

// Names hold no control characters, and JSON text holds none of these: so they separate, and nothing needs an escape.
const fieldEnd = '\x1f'
const eventEnd = '\x1e'
const noKeys: readonly string[] = []
/** Parts the batches of a group. */
export const batchEnd = '\x1d'

/** The events of a batch as they are kept: their fields as text, filter keys last. */
export function encodeBatch(events: readonly StoredEvent[]): string {
  return events.map(encodeEvent).join(eventEnd)
}

/** Reads what {@link encodeBatch} wrote. Payloads stay text. */
export function decodeBatch(text: string): StoredEvent[] {
  return text.includes(eventEnd) ? text.split(eventEnd).map(decodeEvent) : [decodeEvent(text)]
}

/** How many bytes of an event's text part its fields, where it has no filter keys. */
export const fieldEndBytes = 4

/** What limits in bytes count of `events`, whose text has so many UTF-8 bytes: what separates fields is no part of it. */
export function bytesOf(events: readonly StoredEvent[], encodedBytes: number): number {
  return events.reduce((bytes, { filterKeys }) => bytes - 5 - filterKeys.length, encodedBytes + 1)
}

function encodeEvent({ topic, type, key, namespace, payloadText, filterKeys }: StoredEvent): string {
  return [topic, type, key, namespace, payloadText, ...filterKeys].join(fieldEnd)
}

function decodeEvent(text: string): StoredEvent {
  // Every page of a replay passes here. Fields that are looked for one by one take half the time of a split.
  const topicEnd = text.indexOf(fieldEnd)
  const typeEnd = text.indexOf(fieldEnd, topicEnd + 1)
  const keyEnd = text.indexOf(fieldEnd, typeEnd + 1)
  const namespaceEnd = text.indexOf(fieldEnd, keyEnd + 1)
  const payloadEnd = text.indexOf(fieldEnd, namespaceEnd + 1)
  const names = {
    topic: text.slice(0, topicEnd),
    type: text.slice(topicEnd + 1, typeEnd),
    key: text.slice(typeEnd + 1, keyEnd),
    namespace: text.slice(keyEnd + 1, namespaceEnd),
    filterKeys: payloadEnd < 0 ? noKeys : text.slice(payloadEnd + 1).split(fieldEnd),
  }
  return new StoredEvent(
    names,
    payloadEnd < 0 ? text.slice(namespaceEnd + 1) : text.slice(namespaceEnd + 1, payloadEnd),
  )
}
