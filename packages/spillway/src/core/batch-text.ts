import { StoredEvent } from './event.ts'

// Names hold no control characters, and JSON text holds none of these: so they separate, and nothing needs an escape.
const fieldEnd = '\x1f'
const eventEnd = '\x1e'
/** Parts the batches of a page. */
export const batchEnd = '\x1d'

/** The events of a batch as they are kept: their fields as text, filter keys last. */
export function encodeBatch(events: readonly StoredEvent[]): string {
  return events.map(encodeEvent).join(eventEnd)
}

/** Reads what {@link encodeBatch} wrote. Payloads stay text. */
export function decodeBatch(text: string): StoredEvent[] {
  return text.split(eventEnd).map(decodeEvent)
}

/** What limits in bytes count of `events`, whose text has so many UTF-8 bytes: what separates fields is no part of it. */
export function bytesOf(events: readonly StoredEvent[], encodedBytes: number): number {
  return events.reduce((bytes, { filterKeys }) => bytes - 5 - filterKeys.length, encodedBytes + 1)
}

function encodeEvent({ topic, type, key, namespace, payloadText, filterKeys }: StoredEvent): string {
  return [topic, type, key, namespace, payloadText, ...filterKeys].join(fieldEnd)
}

function decodeEvent(text: string): StoredEvent {
  const [topic = '', type = '', key = '', namespace = '', payload = '', ...filterKeys] = text.split(fieldEnd)
  return new StoredEvent({ topic, type, key, namespace, filterKeys }, payload)
}
