import assert from 'node:assert/strict'
import { type ClientRequest, type IncomingMessage, request } from 'node:http'
import type { TestContext } from 'node:test'
import { Feed, type Site } from './http.ts'
import { type SseBlock, type SseMessage, SseParser } from './sse.ts'

/** An open response whose body goes on. */
export class OpenStream {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly #request: ClientRequest
  readonly #response: IncomingMessage
  #ended: 'open' | 'clean' | 'cut' = 'open'

  constructor(request: ClientRequest, response: IncomingMessage) {
    this.#request = request
    this.#response = response
    this.status = response.statusCode ?? 0
    this.headers = response.headers
    response.on('end', () => {
      this.#ended = 'clean'
    })
    response.on('error', () => {
      if (this.#ended === 'open') this.#ended = 'cut'
    })
  }

  /** `clean`: the server ended the body. `cut`: the connection broke. */
  get ended(): 'open' | 'clean' | 'cut' {
    return this.#ended
  }

  /** Hangs up. */
  close(): void {
    this.#request.destroy()
  }

  /** Gives each piece of the body to `onBytes`, as the socket had it. */
  onBytes(onBytes: (bytes: Buffer) => void, onEnd: () => void): void {
    this.#response.on('data', onBytes)
    this.#response.on('close', onEnd)
  }
}

/** Opens a stream and waits for its headers. */
export function open(
  t: TestContext,
  { port }: Pick<Site, 'port'>,
  path: string,
  headers: Record<string, string> = {},
): Promise<OpenStream> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ host: '127.0.0.1', port, path, headers, agent: false }, (response) =>
      resolve(new OpenStream(outgoing, response)),
    )
    outgoing.on('error', reject)
    outgoing.end()
    t.after(() => outgoing.destroy())
  })
}

export interface SseReader {
  readonly stream: OpenStream
  readonly parser: SseParser
  /** The next block, heartbeats and the opening included. */
  nextBlock(): Promise<SseBlock | undefined>
  /** The next message; blocks without data are passed over. */
  nextMessage(): Promise<SseMessage | undefined>
}

/** Follows `/v1/events` as Server-Sent Events. `query` with its question mark. */
export async function followSse(
  t: TestContext,
  site: Pick<Site, 'port'>,
  query = '',
  headers: Record<string, string> = {},
): Promise<SseReader> {
  const stream = await open(t, site, `/v1/events${query}`, { accept: 'text/event-stream', ...headers })
  assert.equal(stream.status, 200)
  const feed = new Feed<SseBlock>()
  const parser = new SseParser((block) => feed.push(block))
  stream.onBytes(
    (bytes) => parser.push(bytes),
    () => feed.end(),
  )
  const nextBlock = () => feed.next('an SSE block')
  const nextMessage = async () => {
    for (;;) {
      const block = await nextBlock()
      if (!block || block.message) return block?.message
    }
  }
  return { stream, parser, nextBlock, nextMessage }
}

export interface LineReader {
  readonly stream: OpenStream
  /** The next line without its break. */
  nextLine(): Promise<string | undefined>
  /** The next line as JSON. */
  next(): Promise<unknown>
  /** What came after the last line break. */
  readonly rest: () => string
}

/** Follows any of the faces line by line. */
export async function followLines(
  t: TestContext,
  site: Pick<Site, 'port'>,
  path: string,
  headers: Record<string, string> = {},
): Promise<LineReader> {
  const stream = await open(t, site, path, headers)
  assert.equal(stream.status, 200)
  const feed = new Feed<string>()
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  let rest = ''
  stream.onBytes(
    (bytes) => {
      const lines = (rest + decoder.decode(bytes, { stream: true })).split('\n')
      rest = lines.pop() as string
      for (const line of lines) feed.push(line)
    },
    () => feed.end(),
  )
  const nextLine = () => feed.next('a line')
  const next = async () => {
    const line = await nextLine()
    return line === undefined ? undefined : (JSON.parse(line) as unknown)
  }
  return { stream, nextLine, next, rest: () => rest }
}

/** Follows `/v1/events` as NDJSON. */
export function followNdjson(
  t: TestContext,
  site: Pick<Site, 'port'>,
  query = '',
  headers: Record<string, string> = {},
): Promise<LineReader> {
  return followLines(t, site, `/v1/events${query}`, { accept: 'application/x-ndjson', ...headers })
}
