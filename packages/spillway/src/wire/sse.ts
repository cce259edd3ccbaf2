// [WHATWG HTML, 9.2 Server-sent events] A block is lines up to an empty line; CR, LF and CRLF end a line. What is put
// into a block here is JSON on one line or a cursor, so no field of an event can hold a line break.

/** A message that `EventSource.onmessage` gets, or with a `name` the listeners of that name. `id` is the position after it. */
export function sseBlock(id: string, data: string, name?: string): string {
  return name === undefined ? `id: ${id}\ndata: ${data}\n\n` : `event: ${name}\nid: ${id}\ndata: ${data}\n\n`
}

/**
 * A block without data: it dispatches nothing but sets the last event ID, so a reader can resume after a quiet time.
 * `retry` sets how many milliseconds the browser waits before it reconnects.
 */
export function ssePosition(id: string, retry?: number): string {
  return retry === undefined ? `id: ${id}\n\n` : `retry: ${retry}\nid: ${id}\n\n`
}
