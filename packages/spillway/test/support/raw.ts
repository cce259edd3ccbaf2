import assert from 'node:assert/strict'
import { connect, type Socket } from 'node:net'
import type { TestContext } from 'node:test'
import { until } from './http.ts'

/** An HTTP response as its bytes say it. */
export interface RawResponse {
  readonly statusLine: string
  /** Header lines as they came. */
  readonly headers: readonly string[]
  header(name: string): string | undefined
  /** What follows the empty line, with its chunk sizes if there are some. */
  readonly rawBody: Buffer
  readonly chunked: boolean
  /** The data of the chunks that are complete, or the body as it is. */
  readonly body: string
  /** The last chunk has come. */
  readonly complete: boolean
}

/** A client that sees bytes. */
export class RawClient {
  readonly socket: Socket
  #chunks: Buffer[] = []
  /** The server has ended its side. */
  ended = false
  closed = false
  error: NodeJS.ErrnoException | undefined

  private constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', (chunk: Buffer) => this.#chunks.push(chunk))
    socket.on('end', () => {
      this.ended = true
    })
    socket.on('close', () => {
      this.closed = true
    })
    socket.on('error', (error) => {
      this.error = error
    })
  }

  /** Connects and sends `text`. */
  static async open(t: TestContext, port: number, text: string | Uint8Array = ''): Promise<RawClient> {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true })
    const client = new RawClient(socket)
    t.after(() => socket.destroy())
    await new Promise<void>((resolve, reject) => socket.on('connect', resolve).on('error', reject))
    if (text.length > 0) client.send(text)
    return client
  }

  send(text: string | Uint8Array): void {
    this.socket.write(text)
  }

  get bytes(): Buffer {
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks)]
    return this.#chunks[0] ?? Buffer.alloc(0)
  }

  get text(): string {
    return this.bytes.toString('latin1')
  }

  /** The response so far; `undefined` before its headers are complete. */
  get response(): RawResponse | undefined {
    return parseResponse(this.bytes)
  }

  /** The response once it holds what is wanted. */
  async responseWith(wanted: (response: RawResponse) => boolean, what: string): Promise<RawResponse> {
    await until(
      () => {
        const { response } = this
        return response !== undefined && wanted(response)
      },
      () => `${what}; got ${JSON.stringify(this.text)}`,
    )
    return this.response as RawResponse
  }

  /** The response once its body holds all of `text`. */
  bodyWith(text: string): Promise<RawResponse> {
    return this.responseWith(({ body }) => body.includes(text), `a body with ${JSON.stringify(text)}`)
  }

  /** Everything, once the server has closed the connection. */
  async toEnd(): Promise<RawResponse> {
    await until(
      () => this.closed,
      () => `the server closes the connection; got ${JSON.stringify(this.text)}`,
    )
    const { response } = this
    assert.ok(response, `no response in ${JSON.stringify(this.text)} (${this.error?.message ?? 'no error'})`)
    return response
  }
}

/** The bytes of a request without a body. */
export function get(target: string, headers: readonly string[] = [], start = 'GET', version = '1.1'): string {
  return [`${start} ${target} HTTP/${version}`, 'Host: localhost', ...headers, '', ''].join('\r\n')
}

/** The bytes of a publish request. */
export function posting(headers: readonly string[], body = ''): string {
  return [`POST /v1/events HTTP/1.1`, 'Host: localhost', ...headers, '', body].join('\r\n')
}

/** Reads a response as strictly as RFC 9112 allows. */
export function parseResponse(bytes: Buffer): RawResponse | undefined {
  const split = bytes.indexOf('\r\n\r\n')
  if (split < 0) return undefined
  const [statusLine = '', ...headers] = bytes.subarray(0, split).toString('latin1').split('\r\n')
  const header = (name: string) => {
    const found = headers.filter((line) => line.toLowerCase().startsWith(`${name.toLowerCase()}:`))
    assert.ok(found.length <= 1, `${name} came twice: ${found.join(' | ')}`)
    return found[0]?.slice(name.length + 1).trim()
  }
  for (const line of headers) assert.match(line, /^[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\x20-\x7e]*$/, 'a header line')
  const rawBody = bytes.subarray(split + 4)
  const chunked = header('transfer-encoding') === 'chunked'
  const { body, complete } = chunked ? dechunk(rawBody) : { body: rawBody, complete: false }
  return { statusLine, headers, header, rawBody, chunked, body: body.toString('utf8'), complete }
}

function dechunk(raw: Buffer): { body: Buffer; complete: boolean } {
  const parts: Buffer[] = []
  let at = 0
  for (;;) {
    const lineEnd = raw.indexOf('\r\n', at)
    if (lineEnd < 0) break
    const line = raw.subarray(at, lineEnd).toString('latin1')
    assert.match(line, /^[0-9a-f]+$/i, 'a chunk size')
    const size = Number.parseInt(line, 16)
    const end = lineEnd + 2 + size
    if (size === 0) {
      if (raw.length < end + 2) break
      assert.equal(raw.subarray(lineEnd + 2).toString('latin1'), '\r\n', 'nothing after the last chunk')
      return { body: Buffer.concat(parts), complete: true }
    }
    if (raw.length < end + 2) break
    assert.equal(raw.subarray(end, end + 2).toString('latin1'), '\r\n', 'a line break after each chunk')
    parts.push(raw.subarray(lineEnd + 2, end))
    at = end + 2
  }
  return { body: Buffer.concat(parts), complete: false }
}
