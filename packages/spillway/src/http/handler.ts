import { type AnyBroker, LocalBroker, type SubscribeOptions } from '../core/broker.ts'
import { systemClock } from '../core/clock.ts'
import { formatCursor } from '../core/cursor.ts'
import { SpillwayError, shown } from '../core/errors.ts'
import { parseBatch, parseBatches } from '../wire/publish.ts'
import { ndjsonFormat, nomadFormat, sseFormat } from './format.ts'
import { parseQuery, parseTopics, single } from './query.ts'
import { Encoder, EventStream, type StreamBody, Streams } from './stream.ts'

/** A request as every mount presents it. */
export interface HandlerRequest {
  readonly method: string
  /** Path without the query. */
  readonly path: string
  /** Query without the question mark, as it came. */
  readonly query: string
  /** The value of a header by its name in lower case; several values joined by a comma. */
  header(name: string): string | undefined
  readonly body: AsyncIterable<Uint8Array>
  /** Calls `listener` when the peer goes away, before or after it was answered. */
  onGone(listener: () => void): void
}

/** What a mount is to send: a whole body, or a stream to be connected to the socket. */
export interface HandlerResponse {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | StreamBody
}

export interface HandlerOptions {
  /** Milliseconds of silence after which a stream sends a sign of life. 100 to 30,000. Default 15,000. */
  heartbeat?: number
  /** Milliseconds a client may take no bytes, while some wait for it, before it is cut off. Default 30,000; 40,000 on Nomad's path. */
  stallTimeout?: number
  /** Bytes that a publish request may have. Default 1,048,576. */
  maxBody?: number
  /** Milliseconds that clients are told to wait before they reconnect. Default 1,000. */
  retry?: number
  /**
   * Told of failures that strangers learn nothing about: what `authenticate` threw beside a `SpillwayError`, failures of
   * the log, and defects. Default: `console.error`.
   */
  onError?: (error: unknown) => void
}

/** Answers one request; `undefined` if the path is not one of ours, so that a mount may pass it on. */
export type Handler = (request: HandlerRequest) => Promise<HandlerResponse | undefined>

const mebibyte = 2 ** 20
const text = { 'content-type': 'text/plain; charset=utf-8' }

/**
 * The HTTP faces of a broker, free of any framework: mounts translate. Throws `CONFIG` for a bad option.
 *
 *     GET  /v1/events        follow as SSE or NDJSON
 *     POST /v1/events        publish
 *     GET  /v1/event/stream  follow as Nomad's clients do
 *     GET  /v1/status        what is kept
 *     GET  /healthz          whether it is alive
 */
export function createHandler(broker: AnyBroker, options: HandlerOptions = {}): Handler {
  if (!(broker instanceof LocalBroker)) {
    throw new SpillwayError('CONFIG', `broker must come from createBroker, got ${shown(broker)}.`)
  }
  const faces = new Faces(broker, options)
  return (request) => faces.answer(request)
}

class Faces {
  readonly #broker: LocalBroker
  readonly #stallTimeout: number
  readonly #nomadStallTimeout: number
  readonly #maxBody: number
  readonly #streams: Streams
  readonly #sse: Encoder
  readonly #ndjson: Encoder
  readonly #nomad: Encoder
  readonly #nomadBookmarks: Encoder
  readonly #onError: (error: unknown) => void

  constructor(
    broker: LocalBroker,
    { heartbeat, stallTimeout, maxBody, retry, onError = console.error }: HandlerOptions,
  ) {
    this.#broker = broker
    this.#onError = onError
    this.#stallTimeout = integer('stallTimeout', stallTimeout ?? 30_000, 1, 2 ** 31 - 1)
    this.#nomadStallTimeout = stallTimeout ?? 40_000
    this.#maxBody = integer('maxBody', maxBody ?? mebibyte, 1, 2 ** 30)
    this.#streams = new Streams(systemClock, integer('heartbeat', heartbeat ?? 15_000, 100, 30_000), this.#stallTimeout)
    const wait = integer('retry', retry ?? 1000, 0, 2 ** 31 - 1)
    this.#sse = new Encoder(sseFormat(wait))
    this.#ndjson = new Encoder(ndjsonFormat(wait))
    this.#nomad = new Encoder(nomadFormat(false))
    this.#nomadBookmarks = new Encoder(nomadFormat(true))
  }

  async answer(request: HandlerRequest): Promise<HandlerResponse | undefined> {
    const { path } = request
    try {
      if (path === '/v1/event/stream') return await this.#nomadStream(request)
      if (path === '/v1/events') return await this.#events(request)
      if (path === '/v1/status') return this.#get(request, () => json(200, this.#status()))
      if (path === '/healthz') return this.#get(request, () => ({ status: 200, headers: text, body: 'ok\n' }))
      return undefined
    } catch (error) {
      return problem(this.#explain(error))
    }
  }

  async #events(request: HandlerRequest): Promise<HandlerResponse> {
    if (request.method === 'GET') return this.#follow(request)
    if (request.method === 'POST') return this.#publish(request)
    return notAllowed('GET, POST', request.method)
  }

  async #follow(request: HandlerRequest): Promise<HandlerResponse> {
    const parameters = parseQuery(request.query)
    for (const name of parameters.keys()) {
      if (!followParameters.has(name)) {
        throw new SpillwayError(
          'INVALID',
          `The query has the unknown parameter ${shown(name)}. Known: ${[...followParameters].join(', ')}.`,
        )
      }
    }
    const encoder = this.#negotiate(request.header('accept'))
    // [spec] A browser sends Last-Event-ID when it reconnects to the URL that it began with, so it knows better than `from`.
    const from = request.header('last-event-id') || single(parameters, 'from') || 'latest'
    const namespaces = parameters.get('namespace')
    const topics = parseTopics(parameters.get('topic'))
    const options: SubscribeOptions = { topics, from, onLag: 'skip', token: tokenOf(request) }
    return this.#stream(request, namespaces ? { ...options, namespaces } : options, encoder, this.#stallTimeout)
  }

  #negotiate(accept: string | undefined): Encoder {
    const types = (accept || '*/*').split(',').map((type) => type.split(';', 1)[0]?.trim().toLowerCase())
    for (const type of types) {
      if (type === 'application/x-ndjson' || type === 'application/ndjson') return this.#ndjson
      if (type === 'text/event-stream' || type === 'text/*' || type === '*/*') return this.#sse
    }
    throw new SpillwayError(
      'NOT_ACCEPTABLE',
      `Accept must name text/event-stream or application/x-ndjson, got ${shown(accept)}.`,
    )
  }

  async #nomadStream(request: HandlerRequest): Promise<HandlerResponse> {
    if (request.method !== 'GET') return { status: 405, headers: { ...text, allow: 'GET' }, body: 'Invalid method' }
    try {
      const parameters = parseQuery(request.query)
      const namespace = parameters.get('namespace')?.[0] || 'default'
      const encoder = parameters.get('bookmarks')?.[0] === 'true' ? this.#nomadBookmarks : this.#nomad
      const options: SubscribeOptions = {
        from: { at: nomadIndex(parameters.get('index')?.[0]) },
        topics: nomadTopics(parameters.get('topic')),
        namespaces: [namespace],
        onLag: 'skip',
        token: tokenOf(request),
      }
      return await this.#stream(request, options, encoder, this.#nomadStallTimeout)
    } catch (error) {
      const { status, message } = this.#explain(error)
      return { status, headers: text, body: status === 403 ? 'Permission denied' : message }
    }
  }

  async #stream(
    request: HandlerRequest,
    options: SubscribeOptions,
    encoder: Encoder,
    stallTimeout: number,
  ): Promise<HandlerResponse> {
    const subscription = this.#broker.subscribe(options)
    const place = () => {
      const { oldestIndex: oldest, newestIndex: newest } = this.#broker.status
      return { cursor: subscription.cursor, index: subscription.index, oldest, newest }
    }
    const body = new EventStream(this.#streams, subscription, encoder, place, stallTimeout)
    // From here on: whoever leaves while access is still being checked must not be kept.
    request.onGone(() => body.gone())
    try {
      await subscription.ready
    } catch (error) {
      if (error instanceof SpillwayError) throw error
      this.#onError(error)
      throw new SpillwayError('FORBIDDEN', 'Permission denied', { cause: error })
    }
    const { contentType, cacheControl } = encoder.format
    // nginx holds a response back until it ends unless it is told not to.
    const headers = { 'content-type': contentType, 'cache-control': cacheControl, 'x-accel-buffering': 'no' }
    return { status: 200, headers, body }
  }

  async #publish(request: HandlerRequest): Promise<HandlerResponse> {
    const type = request.header('content-type')?.split(';', 1)[0]?.trim().toLowerCase()
    const isLines = type === 'application/x-ndjson' || type === 'application/ndjson'
    // A form or text/plain would let any web page publish here without asking first.
    if (!isLines && type !== 'application/json') {
      throw new SpillwayError(
        'UNSUPPORTED_TYPE',
        `Content-Type must be application/json or application/x-ndjson, got ${shown(type)}.`,
      )
    }
    const encoding = request.header('content-encoding') ?? 'identity'
    if (encoding !== 'identity')
      throw new SpillwayError('UNSUPPORTED_TYPE', `Content-Encoding must be identity, got ${shown(encoding)}.`)
    const body = await this.#read(request)
    const batches = isLines ? parseBatches(body) : [parseBatch(body, 'body')]
    const indexes = await this.#broker.publishAll(batches)
    const { epoch, newestIndex } = this.#broker.status
    const index = indexes.at(-1) ?? newestIndex
    return json(200, { index, cursor: formatCursor(epoch, index), batches: indexes.length })
  }

  async #read(request: HandlerRequest): Promise<string> {
    const tooLarge = () =>
      new SpillwayError('TOO_LARGE', `The body has more than ${this.#maxBody} bytes (maxBody). Nothing was stored.`)
    if (Number(request.header('content-length')) > this.#maxBody) throw tooLarge()
    // Fatal: a replaced byte would be a changed payload.
    const decoder = new TextDecoder('utf-8', { fatal: true })
    let size = 0
    let body = ''
    try {
      for await (const chunk of request.body) {
        size += chunk.length
        if (size > this.#maxBody) throw tooLarge()
        body += decoder.decode(chunk, { stream: true })
      }
      return body + decoder.decode()
    } catch (error) {
      if (error instanceof SpillwayError) throw error
      const problem = error instanceof TypeError ? 'must be UTF-8' : 'ended before it was complete'
      throw new SpillwayError('INVALID', `The body ${problem}.`, { cause: error })
    }
  }

  /** The error to answer with. What went wrong inside is for the operator, not for strangers. */
  #explain(error: unknown): SpillwayError {
    const explained =
      error instanceof SpillwayError ? error : new SpillwayError('INTERNAL', 'The request failed.', { cause: error })
    if (explained.status >= 500) this.#onError(error)
    return explained
  }

  #get(request: HandlerRequest, reply: () => HandlerResponse): HandlerResponse {
    return request.method === 'GET' || request.method === 'HEAD' ? reply() : notAllowed('GET, HEAD', request.method)
  }

  #status(): Record<string, unknown> {
    const { oldestIndex, newestIndex, ...rest } = this.#broker.status
    return { oldest: oldestIndex ?? null, newest: newestIndex, ...rest, streams: this.#streams.size }
  }
}

const followParameters = new Set(['topic', 'namespace', 'from'])

function tokenOf(request: HandlerRequest): string {
  const bearer = /^Bearer +(.*)$/i.exec(request.header('authorization') ?? '')?.[1]
  return request.header('x-nomad-token') ?? bearer ?? ''
}

function nomadIndex(value = ''): number {
  if (value === '') return 0
  // As Go's ParseUint, whose wording Nomad's users know.
  if (!/^[0-9]+$/.test(value))
    throw new SpillwayError(
      'INVALID',
      `Unable to parse index: strconv.ParseUint: parsing ${shown(value)}: invalid syntax`,
    )
  const index = Number(value)
  if (Number.isSafeInteger(index)) return index
  throw new SpillwayError(
    'INVALID',
    `Unable to parse index: strconv.ParseUint: parsing ${shown(value)}: value out of range (2^53-1)`,
  )
}

function nomadTopics(values: readonly string[] | undefined): Record<string, string[]> {
  try {
    return parseTopics(values, (topic) => {
      const parts = topic.split(':')
      if (parts.length <= 2) return parts
      throw new SpillwayError('INVALID', `error parsing topics: Invalid key value pair for topic, topic: ${topic}`)
    })
  } catch (error) {
    throw new SpillwayError('INVALID', `Invalid topic query: ${(error as Error).message}`, { cause: error })
  }
}

/** A refusal as RFC 9457 has it. */
function problem({ status, code, message, retryable, advice, cursor }: SpillwayError): HandlerResponse {
  const body = { type: 'about:blank', title: code, status, detail: message, code, retryable, advice, cursor }
  const headers: Record<string, string> = { 'content-type': 'application/problem+json', 'cache-control': 'no-store' }
  if (status === 401) headers['www-authenticate'] = 'Bearer'
  return { status, headers, body: JSON.stringify(body) }
}

function notAllowed(allow: string, method: string): HandlerResponse {
  const refused = problem(new SpillwayError('METHOD', `Method must be one of ${allow}, got ${shown(method)}.`))
  return { ...refused, headers: { ...refused.headers, allow } }
}

function json(status: number, value: unknown): HandlerResponse {
  return {
    status,
    headers: { 'content-type': 'application/json', 'cache-control': 'no-store' },
    body: `${JSON.stringify(value)}\n`,
  }
}

function integer(option: string, value: unknown, least: number, most: number): number {
  if (Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most) return value as number
  throw new SpillwayError('CONFIG', `${option} must be an integer from ${least} to ${most}, got ${shown(value)}.`)
}
