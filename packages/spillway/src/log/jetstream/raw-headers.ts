import type { MsgHdrs } from '@nats-io/nats-core'

/** A message, whose headers are taken apart only by who asks for them. */
export interface UnreadMessage {
  readonly data: Uint8Array
  readonly headers?: MsgHdrs | undefined
}

/** Bytes before a payload that are looked at: the headers of a record take some 200. */
const mostBytes = 400
const decoder = new TextDecoder()
const start = 'NATS/1.0'

/**
 * Headers of one message. The client keeps them right before the payload, as they came; where they are not found there, it is
 * asked for them. It makes a map of arrays of all, which takes 2 us a message (bench, part E: a replay takes 7 to 9).
 */
export class RawHeaders {
  readonly #message: UnreadMessage
  /** From the first header on. */
  readonly #text: string

  constructor(message: UnreadMessage) {
    this.#message = message
    const { buffer, byteOffset } = message.data
    const from = Math.max(0, byteOffset - mostBytes)
    const text = decoder.decode(new Uint8Array(buffer, from, byteOffset - from))
    const at = text.lastIndexOf(`${start}\r\n`)
    this.#text = at >= 0 && text.endsWith('\r\n\r\n') ? text.slice(at + start.length) : ''
  }

  /** Empty if there is none. */
  get(name: string): string {
    if (this.#text === '') return this.#message.headers?.get(name) ?? ''
    const field = `\r\n${name}: `
    const at = this.#text.indexOf(field)
    return at < 0 ? '' : this.#text.slice(at + field.length, this.#text.indexOf('\r\n', at + field.length))
  }
}
