import assert from 'node:assert/strict'
import { connect, type NetConnectOpts, type OnReadOpts, type Socket } from 'node:net'
import { SseParser } from './sse.ts'

export const faces = ['SSE', 'NDJSON', 'Nomad'] as const
export type Face = (typeof faces)[number]

export interface FollowedBatch {
  readonly index: number
  readonly payloads: readonly unknown[]
}

export interface FollowedGap {
  readonly after: number
  readonly before: number
}

/** What a client makes of the bytes of one response, which may come in any pieces and end anywhere. */
export class Follower {
  readonly face: Face
  status = 0
  headers = ''
  readonly batches: FollowedBatch[] = []
  readonly gaps: FollowedGap[] = []
  /** Batches and losses in their order. */
  readonly story: (FollowedBatch | FollowedGap)[] = []
  closed: { code: string; cursor: string } | undefined
  /** Resumes after the last whole message. */
  cursor: string | undefined
  /** The last index known from a whole message. */
  index = 0
  signsOfLife = 0
  /** The last chunk has come. */
  isComplete = false
  onMessage: () => void = () => {}
  readonly #body: BodyReader
  readonly #sse: SseParser
  readonly #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  /** The pieces of a line that has not ended. */
  #line: string[] = []
  readonly #keeps: boolean

  /**
   * `bodyOnly`: the bytes are those of the body, as a client library gives them. `keepsPayloads`: not where there are so
   * many that they would hide what the server holds.
   */
  constructor(face: Face, { bodyOnly = false, keepsPayloads = true } = {}) {
    this.face = face
    this.#keeps = keepsPayloads
    this.#sse = new SseParser(({ message }) => {
      const before = this.cursor
      this.cursor = this.#sse.lastEventId || this.cursor
      if (message) this.#understand(JSON.parse(message.data))
      else if (this.cursor === before) this.signsOfLife++
      if (!message) this.index = indexOf(this.cursor) ?? this.index
    })
    this.#body = new BodyReader(bodyOnly)
  }

  push(bytes: Uint8Array): void {
    this.#body.push(bytes, (piece) => this.#pushBody(piece))
    this.status = this.#body.status
    this.headers = this.#body.head
    this.isComplete = this.#body.isComplete
  }

  /** The request that goes on where this one stopped. */
  get resumption(): string {
    if (this.face === 'Nomad') return followRequest(this.face, { from: this.index === 0 ? 'earliest' : this.index })
    return followRequest(this.face, { from: this.cursor ?? 'earliest' })
  }

  #pushBody(bytes: Uint8Array): void {
    if (this.status !== 200 && this.status !== 0) return
    if (this.face === 'SSE') {
      this.#sse.push(bytes)
      return
    }
    const [end, ...starts] = this.#decoder.decode(bytes, { stream: true }).split('\n') as [string, ...string[]]
    this.#line.push(end)
    for (const start of starts) {
      this.#understand(JSON.parse(this.#line.join('')))
      this.#line = [start]
    }
  }

  #understand(message: Record<string, unknown>): void {
    if (this.face === 'Nomad') this.#understandNomad(message)
    else this.#understandOurs(message)
    this.onMessage()
  }

  #understandOurs(message: Record<string, unknown>): void {
    const { open, progress, gap, reset, closed, index, events, cursor } = message as {
      open?: { cursor: string }
      progress?: { cursor: string }
      gap?: FollowedGap & { cursor: string }
      reset?: FollowedGap & { cursor: string }
      closed?: { code: string; cursor: string }
      index: number
      events: { payload: unknown }[]
      cursor: string
    }
    const told = open ?? progress ?? gap ?? reset ?? closed ?? { cursor }
    this.cursor = told.cursor
    this.index = indexOf(told.cursor) as number
    if (progress) this.signsOfLife++
    const lost = gap ?? reset
    if (lost) this.#add(this.gaps, { after: lost.after, before: lost.before })
    if (closed) this.closed = closed
    if (told.cursor === cursor)
      this.#add(this.batches, { index, payloads: this.#kept(events.map(({ payload }) => payload)) })
  }

  #understandNomad(message: Record<string, unknown>): void {
    const {
      Index,
      Events,
      Gap,
      Error: failure,
    } = message as {
      Index?: number
      Events?: { Payload: unknown }[]
      Gap?: { After: number; Before: number }
      Error?: { Code: string }
    }
    if (Gap) {
      this.#add(this.gaps, { after: Gap.After, before: Gap.Before })
      this.index = Gap.Before - 1
    } else if (failure) this.closed = { code: failure.Code, cursor: '' }
    else if (Index === undefined || !Events) this.signsOfLife++
    else {
      this.#add(this.batches, { index: Index, payloads: this.#kept(Events.map(({ Payload }) => Payload)) })
      this.index = Index
    }
  }

  #kept(payloads: readonly unknown[]): readonly unknown[] {
    return this.#keeps ? payloads : []
  }

  #add<T extends FollowedBatch | FollowedGap>(list: T[], one: T): void {
    list.push(one)
    this.story.push(one)
  }
}

function indexOf(cursor: string | undefined): number | undefined {
  return cursor === undefined ? undefined : Number(cursor.split(':')[1])
}

/** Takes status line, headers and chunks off the bytes of a response that come in any pieces. */
class BodyReader {
  status = 0
  head = ''
  isComplete = false
  #state: 'head' | 'size' | 'data' | 'data end' | 'plain' | 'end'
  #line = ''
  #left = 0

  constructor(bodyOnly: boolean) {
    this.#state = bodyOnly ? 'plain' : 'head'
  }

  push(bytes: Uint8Array, onBody: (bytes: Uint8Array) => void): void {
    let at = 0
    while (at < bytes.length) {
      if (this.#state === 'plain') {
        onBody(bytes.subarray(at))
        return
      }
      if (this.#state === 'data') {
        const piece = bytes.subarray(at, at + this.#left)
        at += piece.length
        this.#left -= piece.length
        onBody(piece)
        if (this.#left === 0) this.#state = 'data end'
      } else this.#takeChar(String.fromCharCode(bytes[at++] as number))
    }
  }

  #takeChar(char: string): void {
    this.#line += char
    if (this.#state === 'head') {
      if (this.#line.endsWith('\r\n\r\n')) this.#endHead()
    } else if (this.#line.endsWith('\r\n')) this.#endLine()
  }

  #endHead(): void {
    this.head = this.#line
    this.#line = ''
    this.status = Number(/^HTTP\/1\.1 ([0-9]{3}) /.exec(this.head)?.[1])
    this.#state = /^transfer-encoding: chunked\r$/im.test(this.head) ? 'size' : 'plain'
  }

  #endLine(): void {
    const line = this.#line.slice(0, -2)
    this.#line = ''
    if (this.#state === 'size') {
      assert.match(line, /^[0-9a-f]+$/i, 'a chunk size')
      this.#left = Number.parseInt(line, 16)
      this.#state = this.#left === 0 ? 'end' : 'data'
      return
    }
    assert.equal(line, '', 'a line break after a chunk')
    if (this.#state === 'end') this.isComplete = true
    this.#state = 'size'
  }
}

export interface FollowRequest {
  /** `earliest`, `latest`, a cursor, or for Nomad's face the last index that was seen. */
  from?: string | number
  token?: string
  host?: string
}

/** The bytes of a request that follows. */
export function followRequest(face: Face, { from = 'latest', token, host = 'localhost' }: FollowRequest = {}): string {
  const index = from === 'earliest' ? 0 : from === 'latest' ? 2 ** 53 - 1 : Number(from) + 1
  const path = face === 'Nomad' ? `/v1/event/stream?index=${index}` : '/v1/events'
  const headers = [`Host: ${host}`]
  if (token !== undefined) headers.push(`Authorization: Bearer ${token}`)
  if (face === 'SSE') headers.push('Accept: text/event-stream')
  if (face === 'NDJSON') headers.push('Accept: application/x-ndjson')
  const query = face === 'Nomad' ? '' : `?from=${from}`
  return [`GET ${path}${query} HTTP/1.1`, ...headers, '', ''].join('\r\n')
}

/** A client on a socket of its own. */
export interface Client {
  readonly socket: Socket
  readonly follower: Follower
  bytes: number
  isConnected: boolean
  isClosed: boolean
}

export interface FollowOptions {
  keepsPayloads?: boolean
  /** Takes nothing from the kernel, not even the first bytes, until its socket is resumed. */
  isPaused?: boolean
  /** How it reads; what it has read, it gives to the follower itself. */
  onread?: OnReadOpts
}

/** Connects and sends `request`. Its socket is destroyed by whoever opened it. */
export function follow(
  port: number,
  face: Face,
  request: string = followRequest(face),
  { keepsPayloads = true, isPaused = false, onread }: FollowOptions = {},
): Client {
  const socket = connect({
    port,
    host: '127.0.0.1',
    noDelay: true,
    highWaterMark: 16 * 1024,
    ...(onread && { onread }),
  } as NetConnectOpts)
  // Before somebody listens: a socket that was to flow for a moment reads ahead.
  if (isPaused) socket.pause()
  const follower = new Follower(face, { keepsPayloads })
  const client: Client = { socket, follower, bytes: 0, isConnected: false, isClosed: false }
  socket.on('connect', () => {
    client.isConnected = true
    if (request !== '') socket.write(request)
  })
  socket.on('data', (bytes: Buffer) => {
    client.bytes += bytes.length
    follower.push(bytes)
  })
  socket.on('error', () => {})
  socket.on('close', () => {
    client.isClosed = true
  })
  return client
}

/** Runs `task` for 0 to `count - 1`, `width` at a time. */
export async function inParallel(count: number, width: number, task: (n: number) => Promise<void>): Promise<void> {
  let next = 0
  await Promise.all(
    Array.from({ length: Math.min(width, count) }, async () => {
      while (next < count) await task(next++)
    }),
  )
}
