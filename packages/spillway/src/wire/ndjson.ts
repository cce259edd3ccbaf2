import type { SpillwayError } from '../core/errors.ts'
import type { Gap, StoredEvent } from '../core/event.ts'

// The lines of Nomad's event stream (https://developer.hashicorp.com/nomad/api-docs/events): keys in alphabetical order,
// none left out. Its clients fail on an empty line and on a line that is not JSON.

/** Sent first and as a sign of life. */
export const nomadHeartbeat = '{}\n'

/** A sign of life that tells the position. Only for clients that ask: others take a line with an index for events. */
export function nomadBookmark(index: number): string {
  return `{"Index":${index}}\n`
}

/** A batch, whole or reduced to some of its events, each made by {@link nomadEvent}. */
export function nomadBatch(index: number, events: readonly string[]): string {
  return `{"Events":[${events.join(',')}],"Index":${index}}\n`
}

export function nomadGap({ after, before }: Gap): string {
  return `{"Gap":{"After":${after},"Before":${before}}}\n`
}

export function nomadError({ code, message }: SpillwayError): string {
  return `${JSON.stringify({ Error: { Code: code, Message: message } })}\n`
}

export function nomadEvent(
  index: number,
  { filterKeys, key, namespace, payloadText, topic, type }: StoredEvent,
): string {
  const found = JSON.stringify({
    FilterKeys: filterKeys.length > 0 ? filterKeys : null,
    Index: index,
    Key: key,
    Namespace: namespace,
  })
  const named = JSON.stringify({ Topic: topic, Type: type })
  return `${found.slice(0, -1)},"Payload":${payloadText},${named.slice(1)}`
}
