import assert from 'node:assert/strict'

/** What a browser would hand to a listener. */
export interface SseMessage {
  readonly type: string
  readonly data: string
  readonly lastEventId: string
}

/** A block as it was sent, dispatched or not. */
export interface SseBlock {
  readonly fields: readonly (readonly [name: string, value: string])[]
  readonly message: SseMessage | undefined
}

/**
 * Reads an event stream as the WHATWG HTML standard (9.2.6) says, from bytes that may be cut anywhere. Strict where a
 * browser passes over mistakes in silence: it throws for bytes that are no UTF-8 and for fields that mean nothing.
 */
export class SseParser {
  readonly #decoder = new TextDecoder('utf-8', { fatal: true })
  readonly #onBlock: (block: SseBlock) => void
  lastEventId = ''
  retry: number | undefined
  #idBuffer = ''
  #line = ''
  #sawCarriageReturn = false
  #fields: [string, string][] = []

  constructor(onBlock: (block: SseBlock) => void) {
    this.#onBlock = onBlock
  }

  push(bytes: Uint8Array): void {
    for (const char of this.#decoder.decode(bytes, { stream: true })) {
      const isRestOfBreak = char === '\n' && this.#sawCarriageReturn
      this.#sawCarriageReturn = char === '\r'
      if (isRestOfBreak) continue
      if (char === '\n' || char === '\r') this.#endLine()
      else this.#line += char
    }
  }

  /** What came after the last complete block: lost when a connection is cut. */
  get rest(): string {
    return [...this.#fields.map(([name, value]) => `${name}: ${value}\n`), this.#line].join('')
  }

  #endLine(): void {
    const line = this.#line
    this.#line = ''
    if (line === '') {
      this.#dispatch()
      return
    }
    const colon = line.indexOf(':')
    assert.ok(colon > 0, `a line without a field: ${JSON.stringify(line)}`)
    const value = line.slice(colon + 1)
    this.#fields.push([line.slice(0, colon), value.startsWith(' ') ? value.slice(1) : value])
  }

  #dispatch(): void {
    const fields = this.#fields
    this.#fields = []
    let type = ''
    let data = ''
    for (const [name, value] of fields) {
      if (name === 'event') type = value
      else if (name === 'data') data += `${value}\n`
      else if (name === 'id') {
        if (!value.includes('\0')) this.#idBuffer = value
      } else {
        assert.equal(name, 'retry', 'a field that the standard knows')
        assert.match(value, /^[0-9]+$/, 'retry')
        this.retry = Number(value)
      }
    }
    this.lastEventId = this.#idBuffer
    if (data === '') {
      this.#onBlock({ fields, message: undefined })
      return
    }
    const message = { type: type || 'message', data: data.slice(0, -1), lastEventId: this.lastEventId }
    this.#onBlock({ fields, message })
  }
}

/** All blocks of a finished text. */
export function sseBlocks(text: string | Uint8Array): SseBlock[] {
  const blocks: SseBlock[] = []
  new SseParser((block) => blocks.push(block)).push(typeof text === 'string' ? new TextEncoder().encode(text) : text)
  return blocks
}

/** The messages of a finished text, as `onmessage` and the named listeners get them. */
export function sseMessages(text: string | Uint8Array): SseMessage[] {
  return sseBlocks(text).flatMap(({ message }) => (message ? [message] : []))
}
