import { type AccessRequest, type AnyBroker, type From, LocalBroker } from '../core/broker.ts'
import { systemClock } from '../core/clock.ts'
import { formatCursor } from '../core/cursor.ts'
import { type ErrorCode, integerOption, SpillwayError, shown } from '../core/errors.ts'
import { JsonText, type StreamEvent } from '../core/event.ts'
import { Filter } from '../core/filter.ts'
import { Permit } from '../core/rights.ts'
import type { BrokerSubscription } from '../core/subscription.ts'
import { type ParsedBatch, parseBatch, parseBatches } from '../wire/publish.ts'
import { Cors } from './cors.ts'
import { Encoder } from './fan-out/encoder.ts'
import { FanOut } from './fan-out/fan-out.ts'
import { EventStream } from './fan-out/stream.ts'
import { ndjsonFormat, nomadFormat, sseFormat } from './format.ts'
import type { LimitOptions, Place } from './limits.ts'
import { checkNames, expectedIndex, parseFlag, parseQuery, parseTopics, publishId, single, startOf } from './query.ts'
import { createHandlerState, type HandlerState } from './state.ts'
import { ticketLife } from './tickets.ts'

/** Who asks for a stream. */
export type Peer = Pick<HandlerRequest, 'address' | 'header' | 'onGone'>

/** A request as every mount presents it. */
export interface HandlerRequest {
  readonly method: string
  /** Of whom it came from, `''` where that is not known. */
  readonly address: string
  /** Path without the query. */
  readonly path: string
  /** Query without the question mark, as it came. */
  readonly query: string
  /** The value of a header by its name in lower case; several values joined by a comma. */
  header(name: string): string | undefined
  body(): AsyncIterable<Uint8Array>
  /** Calls `listener` when the peer goes away, before or after it was answered, or at once if it has gone. */
  onGone(listener: () => void): void
}

/** What a mount is to send: a whole body, or a stream to be connected to the socket. */
export interface HandlerResponse {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | EventStream
}

export interface HandlerOptions extends LimitOptions {
  /** Milliseconds of silence after which a stream sends a sign of life. 100 to 30,000. Default 15,000. */
  heartbeat?: number | undefined
  /** Milliseconds a client may take no bytes, while some wait for it, before it is cut off. Default 30,000; 40,000 on Nomad's path. */
  stallTimeout?: number | undefined
  /**
   * Milliseconds after which a stream is ended with `RENEW`, less up to a tenth by chance so that not all come back at
   * once; clients resume exactly. It also ends those whose peer vanished without a word. Default 900,000.
   */
  streamAge?: number | undefined
  /**
   * Bytes that may wait in a connection whose peer does not take them. One with fewer is sent one more write: batches
   * until they have four times as many bytes as this. So what waits is less than five times as much, the last of the
   * batches and the frame of HTTP. Where middleware compresses, its own limits count. Default 16,384.
   */
  highWaterMark?: number | undefined
  /**
   * Milliseconds from one round of writes to the next, at least: what is published meanwhile leaves in one write per
   * connection, for less CPU and up to so much more latency. What follows a pause leaves at once. 0 to 10,000. Default 0:
   * only what is published in one turn of the event loop is gathered.
   */
  roundInterval?: number | undefined
  /** Bytes that a publish request may have. Default 1,048,576. */
  maxBody?: number | undefined
  /** UTF-16 units that the payload of one published event may have, as JSON. Default: as `maxBody`. */
  maxPayload?: number | undefined
  /** Events that one batch of a publish request may have. Default 10,000. */
  maxBatch?: number | undefined
  /** Milliseconds that clients are told to wait before they reconnect. Default 1,000. */
  retry?: number | undefined
  /**
   * Origins whose pages may use the faces, such as `https://app.example`; with their cookies, too. `*`: pages of any origin,
   * without cookies. Default: only pages of the server's own origin. [WHATWG Fetch, CORS protocol]
   */
  cors?: '*' | readonly string[] | undefined
  /**
   * The name of a cookie that holds the token where no header does, for pages that can send none. Set it `HttpOnly`, `Secure`
   * and `SameSite`. Default: cookies are not looked at.
   */
  cookie?: string | undefined
  /**
   * Makes a filter of the query's `filter`, an expression; throws `INVALID` for one that is wrong. The filter sees only what
   * its reader may read. Default: the query has no `filter`.
   */
  compileFilter?: ((expression: string) => (event: StreamEvent) => boolean) | undefined
  /**
   * Where streams are counted, tickets kept and publishers slowed down, for servers of several threads or processes; the
   * options that limit these are then not looked at. Default: in this process.
   */
  state?: HandlerState | undefined
  /**
   * Whether a proxy stands before the server that tells in `X-Forwarded-For` whom it speaks for: the last address there
   * counts. Without such a proxy anybody could choose an address. Default `false`.
   */
  trustProxy?: boolean | undefined
  /** Told of everybody who was refused for want of rights or room or beyond a limit, and of streams that lost their rights. */
  onDenied?: ((denial: Denial) => void) | undefined
  /**
   * Told of failures that strangers learn nothing about: what `authorize` threw beside a `SpillwayError`, failures of
   * the log, and defects. Default: `console.error`.
   */
  onError?: ((error: unknown) => void) | undefined
}

/** Somebody who was refused, or a stream that was ended. Nothing of it is secret; names may be strangers' words. */
export interface Denial {
  readonly code: ErrorCode
  readonly message: string
  readonly action: 'read' | 'publish' | 'ticket' | 'status' | 'metrics'
  /** Who it was, where that is known. */
  readonly subject: string | undefined
  /** Where it came from, `''` where that is not known. */
  readonly address: string
}

/**
 * Answers one request. A path that is not one of ours is answered 404, called `unknown`; without that the answer is
 * `undefined`, so that a mount may pass it on.
 */
export type Handler = (request: HandlerRequest, unknown?: string) => Promise<HandlerResponse | undefined>

const mebibyte = 2 ** 20
const text = { 'content-type': 'text/plain; charset=utf-8' }

/**
 * The HTTP faces of a broker, free of any framework: mounts translate. Throws `CONFIG` for a bad option.
 *
 *     GET  /v1/events        follow as SSE or NDJSON
 *     POST /v1/events        publish
 *     POST /v1/tickets       a ticket that stands for the token in a URL, once
 *     GET  /v1/event/stream  follow as Nomad's clients do
 *     GET  /v1/status        what is kept
 *     GET  /healthz          whether it is alive
 */
export function createHandler(broker: AnyBroker, options: HandlerOptions = {}): Handler {
  const faces = new Faces(broker, options)
  const cors = new Cors(options.cors ?? [])
  return async (request, unknown) => {
    const reply = (await faces.answer(request)) ?? (unknown === undefined ? undefined : notFound(unknown))
    return reply && cors.admit(request, reply)
  }
}

/** What is behind the HTTP faces. */
export class Faces {
  /** By path: all that is served. */
  readonly routes: Readonly<Record<string, (request: HandlerRequest) => Promise<HandlerResponse>>> = {
    '/v1/events': (request) => this.#events(request),
    '/v1/tickets': (request) => this.#ticket(request),
    '/v1/event/stream': (request) => this.#nomadStream(request),
    '/v1/status': (request) => this.#get(request, async () => json(200, await this.#status(request))),
    '/healthz': (request) => this.#get(request, () => ({ status: 200, headers: text, body: 'ok\n' })),
  }
  /** Milliseconds that clients are told to wait before they reconnect. */
  readonly retry: number
  readonly #broker: LocalBroker
  readonly #stallTimeout: number
  readonly #nomadStallTimeout: number
  readonly #streamAge: number
  readonly #state: HandlerState
  readonly #maxBody: number
  readonly #maxPayload: number
  readonly #maxBatch: number
  readonly #fanOut: FanOut
  readonly #sse: Encoder
  readonly #ndjson: Encoder
  readonly #nomad: Encoder
  readonly #nomadBookmarks: Encoder
  readonly #cookie: string | undefined
  readonly #trustProxy: boolean
  readonly #compileFilter: HandlerOptions['compileFilter']
  readonly #onDenied: (denial: Denial) => void
  readonly #onError: (error: unknown) => void
  readonly #followParameters: readonly string[]
  /** Who they are, of those who are known. */
  readonly #subjects = new WeakMap<Peer, string>()
  readonly #wishes = new Map<string, Wish>()

  constructor(
    broker: AnyBroker,
    {
      heartbeat,
      stallTimeout,
      streamAge,
      highWaterMark,
      roundInterval,
      maxBody,
      maxPayload,
      maxBatch,
      retry,
      cookie,
      trustProxy = false,
      compileFilter,
      onDenied = ignore,
      onError = console.error,
      state,
      ...limits
    }: HandlerOptions,
  ) {
    if (!(broker instanceof LocalBroker)) {
      throw new SpillwayError('CONFIG', `broker must come from createBroker, got ${shown(broker)}.`)
    }
    if (cookie !== undefined && (typeof cookie !== 'string' || !/^[!#$%&'*+.^_`|~\w-]+$/.test(cookie))) {
      throw new SpillwayError('CONFIG', `cookie must be the name of a cookie, got ${shown(cookie)}.`)
    }
    this.#broker = broker
    this.#cookie = cookie
    this.#trustProxy = trustProxy
    this.#compileFilter = compileFilter
    this.#followParameters = compileFilter ? [...followParameters, 'filter'] : followParameters
    this.#onDenied = onDenied
    this.#onError = onError
    this.#stallTimeout = integerOption('stallTimeout', stallTimeout ?? 30_000, 1, 2 ** 31 - 1)
    this.#nomadStallTimeout = stallTimeout ?? 40_000
    this.#streamAge = integerOption('streamAge', streamAge ?? 900_000, 1000, 2 ** 31 - 1)
    this.#state = state ?? createHandlerState(broker, limits)
    this.retry = integerOption('retry', retry ?? 1000, 0, 2 ** 31 - 1)
    this.#maxBody = integerOption('maxBody', maxBody ?? mebibyte, 1, 2 ** 30)
    this.#maxPayload = integerOption('maxPayload', maxPayload ?? this.#maxBody, 1, 2 ** 30)
    this.#maxBatch = integerOption('maxBatch', maxBatch ?? 10_000, 1, 2 ** 31 - 1)
    this.#fanOut = new FanOut(broker, systemClock, {
      heartbeat: integerOption('heartbeat', heartbeat ?? 15_000, 100, 30_000),
      stallTimeout: this.#stallTimeout,
      highWaterMark: integerOption('highWaterMark', highWaterMark ?? 16_384, 1, 2 ** 30),
      roundInterval: integerOption('roundInterval', roundInterval ?? 0, 0, 10_000),
      report: onError,
    })
    this.#sse = new Encoder(sseFormat(this.retry))
    this.#ndjson = new Encoder(ndjsonFormat(this.retry))
    this.#nomad = new Encoder(nomadFormat(false))
    this.#nomadBookmarks = new Encoder(nomadFormat(true))
  }

  /** Calls `listener` when the broker is closed, after its subscriptions ended. */
  onEnd(listener: () => void): void {
    this.#broker.onClose(listener)
  }

  async answer(request: HandlerRequest): Promise<HandlerResponse | undefined> {
    const route = Object.hasOwn(this.routes, request.path) ? this.routes[request.path] : undefined
    try {
      return await route?.(request)
    } catch (error) {
      return problem(this.#refused(error, actionOf(request), request), this.retry)
    }
  }

  async #events(request: HandlerRequest): Promise<HandlerResponse> {
    if (request.method === 'GET') return this.#follow(request)
    if (request.method === 'POST') return this.#publish(request)
    return notAllowed('GET, POST', request.method)
  }

  async #follow(request: HandlerRequest): Promise<HandlerResponse> {
    const parameters = parseQuery(request.query)
    checkNames(parameters, this.#followParameters)
    const encoder = this.#negotiate(request.header('accept'))
    return streamed(await this.#open(parameters, encoder, request, request.header('last-event-id')))
  }

  /** Opens a stream as `GET /v1/events` with this query does. Rejects with the `SpillwayError` to refuse it with. */
  async open(query: string, encoder: Encoder, peer: Peer): Promise<EventStream> {
    try {
      const parameters = parseQuery(query)
      checkNames(parameters, this.#followParameters)
      return await this.#open(parameters, encoder, peer, undefined)
    } catch (error) {
      throw this.#refused(error, 'read', peer)
    }
  }

  async #open(
    parameters: ReadonlyMap<string, string[]>,
    encoder: Encoder,
    peer: Peer,
    lastEventId: string | undefined,
  ): Promise<EventStream> {
    const from = startOf(parameters, lastEventId)
    const exact = parseFlag('exact', single(parameters, 'exact'))
    const filter = single(parameters, 'filter')
    const token = await this.#tokenOf(peer, single(parameters, 'ticket'))
    // To compile an expression or to look into the log takes time that strangers must not have, and what is kept is not theirs
    // to know.
    const isCostly = filter !== undefined || exact || typeof from === 'object'
    if (isCostly) await this.#access(peer, token, 'read')
    const wish = this.#wish(parseTopics(parameters.get('topic')), parameters.get('namespace'), filter)
    return this.#stream(peer, token, wish, { from, exact }, encoder, this.#stallTimeout)
  }

  /** Who asks. Throws `UNAUTHORIZED` for a ticket that is none. */
  async #tokenOf(peer: Peer, ticket?: string): Promise<string> {
    if (ticket === undefined) return tokenOf(peer, this.#cookie)
    const token = await this.#state.redeemTicket(ticket)
    if (token !== undefined) return token
    const message = `This ticket was used before, or is older than ${ticketLife / 1000} seconds. Get another one.`
    throw new SpillwayError('UNAUTHORIZED', message)
  }

  async #ticket(request: HandlerRequest): Promise<HandlerResponse> {
    if (request.method !== 'POST') return notAllowed('POST', request.method)
    const token = await this.#tokenOf(request)
    if (token === '') throw new SpillwayError('UNAUTHORIZED', 'A ticket stands for a token, and none came.')
    // Only to who may come in: others could use up those that can be out at once.
    await this.#access(request, token, 'read')
    const ticket = await this.#state.issueTicket(token)
    return json(200, { ticket, expiresIn: ticketLife / 1000 })
  }

  /** What is wanted, compiled: the same for all who want the same, of whom there may be thousands. */
  #wish(topics: Record<string, string[]>, namespaces: string[] | undefined, expression?: string): Wish {
    const sorted = Object.entries(topics).map(([topic, keys]) => [topic, [...keys].sort()])
    const shape = JSON.stringify([sorted.sort(), namespaces && [...namespaces].sort(), expression])
    let wish = this.#wishes.get(shape)
    if (!wish) {
      const filter = expression === undefined ? undefined : this.#compileFilter?.(expression)
      const options = namespaces ? { topics, namespaces } : { topics }
      wish = { ...options, shape, compiled: new Filter({ ...options, filter }, Permit.everything, true) }
      // Only a cache: what strangers ask for must not fill the memory.
      if (this.#wishes.size >= maxWishes) this.#wishes.clear()
      this.#wishes.set(shape, wish)
    }
    return wish
  }

  #negotiate(accept: string | undefined): Encoder {
    const wanted = (accept || '*/*').split(',').filter((type) => !/;\s*q=0(\.0*)?\s*$/i.test(type))
    const types = wanted.map((type) => type.split(';', 1)[0]?.trim().toLowerCase())
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
      const from = { at: nomadIndex(parameters.get('index')?.[0]) }
      const wish = this.#wish(nomadTopics(parameters.get('topic')), [namespace])
      const token = await this.#tokenOf(request)
      return streamed(await this.#stream(request, token, wish, { from }, encoder, this.#nomadStallTimeout))
    } catch (error) {
      const refused = this.#refused(error, 'read', request)
      const body = refused.status === 403 ? 'Permission denied' : refused.message
      return { status: refused.status, headers: { ...text, ...retryAfter(refused, this.retry) }, body }
    }
  }

  async #stream(
    peer: Peer,
    token: string,
    wish: Wish,
    start: { from: From; exact?: boolean },
    encoder: Encoder,
    stallTimeout: number,
  ): Promise<EventStream> {
    const place = await this.#state.takePlace(this.#addressOf(peer))
    const subscription = this.#subscribe(place, { ...wish, ...start, token, onLag: 'skip' })
    const stream = new EventStream(this.#fanOut, subscription, {
      encoder,
      shape: wish.shape,
      stallTimeout,
      maxAge: this.#streamAge * (0.9 + Math.random() * 0.1),
      onEnd: (error) => this.#tellDenied(error, 'read', peer),
    })
    // From here on: whoever leaves while access is still being checked must not be kept.
    peer.onGone(() => {
      place.free()
      stream.gone()
    })
    try {
      await subscription.ready
      const { subject = token } = subscription
      this.#know(peer, subject, token)
      await place.for(subject)
    } catch (error) {
      place.free()
      stream.gone()
      throw this.#refusal(error)
    }
    return stream
  }

  async #access(peer: Peer, token: string, action: AccessRequest['action']): ReturnType<LocalBroker['access']> {
    try {
      const access = await this.#broker.access(token, action)
      this.#know(peer, access.subject, token)
      return access
    } catch (error) {
      throw this.#refusal(error)
    }
  }

  #addressOf(peer: Peer): string {
    const forwarded = this.#trustProxy ? peer.header('x-forwarded-for') : undefined
    // Whoever is not behind a proxy that sets it writes what he likes: no address is longer, with zone and port.
    return forwarded?.split(',').at(-1)?.trim().slice(0, maxAddressLength) || peer.address
  }

  /** Where nobody named the subject it is the token, which nobody must be told. */
  #know(peer: Peer, subject: string, token: string): void {
    if (subject !== token) this.#subjects.set(peer, subject)
  }

  /** Why access was refused. A failure of `authorize` itself is for the operator. */
  #refusal(error: unknown): SpillwayError {
    if (error instanceof SpillwayError) return error
    this.#onError(error)
    return new SpillwayError('FORBIDDEN', 'Permission denied', { cause: error })
  }

  #subscribe(place: Place, options: Parameters<LocalBroker['subscribe']>[0]): BrokerSubscription {
    try {
      return this.#broker.subscribe(options)
    } catch (error) {
      place.free()
      throw error
    }
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
    const token = await this.#tokenOf(request)
    // Before the body is read: who may not publish shall not make the server read.
    let access = await this.#access(request, token, 'publish')
    if (!access.publish.reaches('*'))
      throw new SpillwayError('FORBIDDEN', 'These rights do not allow to publish anything.')
    const body = await this.#read(request)
    const batches: ParsedBatch[] = isLines ? parseBatches(body) : [parseBatch(body, 'body')]
    const events = this.#checkBatches(batches)
    const id = publishId(request.header('idempotency-key'), batches[0]?.id)
    let owner = id && (await ownerOf(access.subject))
    // The body may have taken long to come.
    while (!access.isCurrent()) {
      access = await this.#access(request, token, 'publish')
      owner = id && (await ownerOf(access.subject))
    }
    // One who may publish something must not be able to end the history for all by its greatest index.
    if (!access.publish.isEverything && batches.some(({ index }) => index !== undefined)) {
      throw new SpillwayError(
        'FORBIDDEN',
        'To choose an index takes the right to publish everything. Nothing was stored.',
      )
    }
    const publisher = access.subject === '' ? `address ${this.#addressOf(request)}` : `subject ${access.subject}`
    await this.#state.takeEvents(publisher, events)
    const { indexes, duplicate } = await this.#broker.append(batches, {
      id,
      owner,
      expected: expectedIndex(request.query),
      permit: access.publish,
    })
    const { epoch, newestIndex } = this.#broker.status
    const index = indexes.at(-1) ?? newestIndex
    const answer = { index, cursor: formatCursor(epoch, index), batches: indexes.length }
    return json(200, duplicate ? { ...answer, duplicate } : answer)
  }

  /** How many events they have. Throws `TOO_LARGE` for a batch or an event beyond the limits. */
  #checkBatches(batches: readonly ParsedBatch[]): number {
    let count = 0
    for (const { events, name = 'the batch' } of batches) {
      count += events.length
      if (events.length > this.#maxBatch) {
        const message = `${name} has ${events.length} events, at most ${this.#maxBatch} (maxBatch). Nothing was stored.`
        throw new SpillwayError('TOO_LARGE', message)
      }
      for (const { payload } of events) {
        const length = payload instanceof JsonText ? payload.text.length : 0
        if (length <= this.#maxPayload) continue
        const message = `A payload has ${length} characters, at most ${this.#maxPayload} (maxPayload). Nothing was stored.`
        throw new SpillwayError('TOO_LARGE', message)
      }
    }
    return count
  }

  /** The error's peer is told of it by others: this is for the operator. */
  #tellDenied({ code, message }: SpillwayError, action: Denial['action'], peer: Peer): void {
    if (!denials.has(code)) return
    this.#onDenied({ code, message, action, subject: this.#subjects.get(peer), address: this.#addressOf(peer) })
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
      for await (const chunk of request.body()) {
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

  /** The error to answer with, once the operator was told what concerns him. */
  #refused(error: unknown, action: Denial['action'], peer: Peer): SpillwayError {
    const refused = this.#explain(error)
    this.#tellDenied(refused, action, peer)
    return refused
  }

  /** The error to answer with. What went wrong inside is for the operator, not for strangers. */
  #explain(error: unknown): SpillwayError {
    const explained =
      error instanceof SpillwayError ? error : new SpillwayError('INTERNAL', 'The request failed.', { cause: error })
    if (explained.status >= 500 && !expected.has(explained.code)) this.#onError(error)
    return explained
  }

  async #get(
    request: HandlerRequest,
    reply: () => HandlerResponse | Promise<HandlerResponse>,
  ): Promise<HandlerResponse> {
    return request.method === 'GET' || request.method === 'HEAD' ? reply() : notAllowed('GET, HEAD', request.method)
  }

  /** Who may not read all learns nothing of how much there is beside indexes, which its stream tells, too. */
  async #status(request: HandlerRequest): Promise<Record<string, unknown>> {
    const { read } = await this.#access(request, await this.#tokenOf(request), 'read')
    const { oldestIndex, newestIndex, epoch, cursor, floor, ...counts } = this.#broker.status
    const place = { oldest: oldestIndex ?? null, newest: newestIndex, epoch, cursor, floor }
    return read.isEverything
      ? { ...place, ...counts, streams: this.#fanOut.size, ...(await this.#state.counts?.()) }
      : place
  }
}

function streamed(body: EventStream): HandlerResponse {
  const { contentType, cacheControl } = body.encoder.format
  // nginx holds a response back until it ends unless it is told not to.
  const headers = { 'content-type': contentType, 'cache-control': cacheControl, 'x-accel-buffering': 'no' }
  return { status: 200, headers, body }
}

function notFound(path: string): HandlerResponse {
  return problem(new SpillwayError('NOT_FOUND', `Nothing is served at ${shown(path)}.`), 0)
}

/** What a reader wants, as broker and fan-out need it. */
interface Wish {
  readonly topics: Record<string, string[]>
  readonly namespaces?: string[]
  readonly compiled: Filter
  readonly shape: string
}

const maxWishes = 1000
const maxAddressLength = 64

/** Errors that are no failures of ours: who has left, or comes while the broker is being closed, is full or cannot tell who it is. */
const expected: ReadonlySet<ErrorCode> = new Set(['CLOSED', 'SHUTDOWN', 'OVERLOADED', 'UNREACHABLE'])

/** Errors that are about rights, room or limits. */
const denials: ReadonlySet<ErrorCode> = new Set([
  'UNAUTHORIZED',
  'FORBIDDEN',
  'EXPIRED',
  'REVOKED',
  'OVERLOADED',
  'RATE_LIMITED',
  'TOO_LARGE',
])

function ignore(): void {}

/** Whose an id of a publish is, as the log keeps it: a subject may be a token, which must not stand there. */
async function ownerOf(subject: string): Promise<string> {
  if (subject === '') return ''
  const digest = await globalThis.crypto.subtle.digest('SHA-256', new TextEncoder().encode(subject))
  return Array.from(new Uint8Array(digest, 0, 16), (byte) => byte.toString(16).padStart(2, '0')).join('')
}

function actionOf({ method, path }: HandlerRequest): Denial['action'] {
  if (path === '/v1/tickets') return 'ticket'
  if (path === '/v1/status') return 'status'
  return method === 'POST' ? 'publish' : 'read'
}

const followParameters = ['topic', 'namespace', 'from', 'last', 'exact', 'ticket']

function tokenOf(peer: Peer, cookie: string | undefined): string {
  const bearer = /^Bearer +(.*)$/i.exec(peer.header('authorization') ?? '')?.[1]
  return peer.header('x-nomad-token') ?? bearer ?? (cookie === undefined ? '' : cookieOf(peer, cookie))
}

/** [RFC 6265, 5.4] The first of the name is the one of the longest path. */
function cookieOf(peer: Peer, name: string): string {
  for (const pair of peer.header('cookie')?.split(/; */) ?? []) {
    if (pair.startsWith(`${name}=`)) return pair.slice(name.length + 1)
  }
  return ''
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
function problem(error: SpillwayError, retry: number): HandlerResponse {
  const { status, code, message, retryable, advice, cursor, index } = error
  const body = { type: 'about:blank', title: code, status, detail: message, code, retryable, advice, cursor, index }
  const headers: Record<string, string> = { 'content-type': 'application/problem+json', 'cache-control': 'no-store' }
  if (status === 401) headers['www-authenticate'] = 'Bearer'
  return { status, headers: { ...headers, ...retryAfter(error, retry) }, body: JSON.stringify(body) }
}

/** When to come back, spread over twice the time so that not all do at once. */
function retryAfter({ status }: SpillwayError, retry: number): Record<string, string> {
  return status === 503 || status === 429
    ? { 'retry-after': String(Math.ceil((retry / 1000) * (1 + Math.random()))) }
    : {}
}

function notAllowed(allow: string, method: string): HandlerResponse {
  const refused = problem(new SpillwayError('METHOD', `Method must be one of ${allow}, got ${shown(method)}.`), 0)
  return { ...refused, headers: { ...refused.headers, allow } }
}

function json(status: number, value: unknown): HandlerResponse {
  return {
    status,
    headers: { 'content-type': 'application/json', 'cache-control': 'no-store' },
    body: `${JSON.stringify(value)}\n`,
  }
}
