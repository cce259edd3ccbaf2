import type { AnyBroker } from '../core/broker.ts'
import { integerOption, SpillwayError, shown } from '../core/errors.ts'
import { getOrMake } from '../core/get-or-make.ts'
import { closedFrame } from '../wire/frame.ts'
import { Cors } from './cors.ts'
import { Encoder } from './fan-out/encoder.ts'
import type { Piece, Sink } from './fan-out/sink.ts'
import type { EventStream } from './fan-out/stream.ts'
import { type Format, ndjsonFormat } from './format.ts'
import { Faces, type HandlerOptions } from './handler.ts'

/** What is needed of a server of WebSockets; that of the package `ws` fits. */
export interface WebSocketServerLike {
  on(event: 'connection', listener: (socket: WebSocketLike, request: UpgradeRequest) => void): unknown
  off(event: 'connection', listener: (socket: WebSocketLike, request: UpgradeRequest) => void): unknown
}

/** What is needed of one WebSocket of a server. */
export interface WebSocketLike {
  readonly bufferedAmount: number
  readonly readyState: number
  on(event: 'message', listener: (data: unknown, isBinary: boolean) => void): unknown
  on(event: 'close' | 'error', listener: () => void): unknown
  send(data: Uint8Array | string, options: { binary: boolean }, sent: (error?: Error | null) => void): void
  close(code?: number, reason?: string): void
  terminate(): void
}

/** The request that a WebSocket began with. */
export interface UpgradeRequest {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly socket?:
    | { readonly remoteAddress?: string | undefined; readonly encrypted?: boolean | undefined }
    | undefined
}

export interface WebSocketOptions
  extends Omit<HandlerOptions, 'maxBody' | 'maxPayload' | 'maxBatch' | 'maxPublishRate'> {
  /** Subscriptions that one connection may have at once. 1 to 1,024. Default 64. */
  maxSubscriptions?: number | undefined
  /** Milliseconds that a connection may have no subscription before it is closed. 1 to 2^31-1. Default 10,000. */
  idleTimeout?: number | undefined
}

const defaultSubscriptions = 64
/** UTF-16 units that a message of a client may have: a query has no more, either. */
const maxMessage = 16_384
const defaultIdleTimeout = 10_000
/** Bytes that may wait in a connection which is to be told of a refusal. */
const mostUnread = 4 * 2 ** 20
/** Subscriptions that may be refused one after the other before a connection is closed. */
const mostRefusals = 16
const isOpen = 1

/**
 * The stream of `GET /v1/events` over WebSockets: each connection of `server` may ask for any number of subscriptions with
 * `{"subscribe":"<query>","id"?,"token"?}` and give one up with `{"unsubscribe":id}`. It gets the lines that NDJSON has, one
 * or more in a message; those of a subscription with an `id` begin with it. Without one, the end of the subscription ends
 * the connection, with the close code of the error table. Pages of other origins must be named in `cors`.
 * Gives the undo, which leaves connections that are open alone.
 * Throws `CONFIG` for a bad option.
 */
export function attachWebSocket(
  broker: AnyBroker,
  server: WebSocketServerLike,
  options: WebSocketOptions = {},
): () => void {
  const { maxSubscriptions = defaultSubscriptions, idleTimeout = defaultIdleTimeout, cors = [], ...rest } = options
  const site: Site = {
    maxSubscriptions: integerOption('maxSubscriptions', maxSubscriptions, 1, 1024),
    idleTimeout: integerOption('idleTimeout', idleTimeout, 1, 2 ** 31 - 1),
    faces: new Faces(broker, rest),
    connections: new Set(),
    cors: new Cors(cors),
    encoders: new Map(),
  }
  const accept = (socket: WebSocketLike, request: UpgradeRequest): void => {
    new SocketConnection(site, socket, request)
  }
  // Those with subscriptions end with them.
  site.faces.onEnd(() => {
    for (const connection of site.connections) connection.endIfIdle()
  })
  server.on('connection', accept)
  return () => void server.off('connection', accept)
}

interface Site {
  readonly faces: Faces
  readonly cors: Cors
  readonly maxSubscriptions: number
  readonly idleTimeout: number
  readonly connections: Set<SocketConnection>
  /** One for each id, which all connections that use it share; so they share what is encoded. */
  readonly encoders: Map<number | undefined, Encoder>
}

class SocketConnection {
  readonly #site: Site
  readonly #socket: WebSocketLike
  readonly #request: UpgradeRequest
  /** By id; what `gone` has to be told to. */
  readonly #subscriptions = new Map<number | undefined, Subscribed>()
  #written = 0
  /** Since a subscription last came about. */
  #refusals = 0
  #idle: ReturnType<typeof setTimeout> | undefined

  constructor(site: Site, socket: WebSocketLike, request: UpgradeRequest) {
    this.#site = site
    this.#socket = socket
    this.#request = request
    site.connections.add(this)
    this.#awaitOrder()
    socket.on('error', () => socket.terminate())
    socket.on('close', () => {
      for (const { gone } of [...this.#subscriptions.values()]) gone()
      clearTimeout(this.#idle)
      site.connections.delete(this)
    })
    socket.on('message', (data, isBinary) => {
      // It was refused, and has not heard of it yet.
      if (socket.readyState !== isOpen) return
      try {
        this.#obey(parseOrder(data, isBinary, site.maxSubscriptions))
      } catch (error) {
        this.#refuse(error as SpillwayError)
      }
    })
    // [RFC 6455, 10.2] A browser lets any page open a WebSocket, and says only whose page it is.
    if (!this.#isOwnOr((origin) => site.cors.admits(origin)))
      this.#refuse(new SpillwayError('FORBIDDEN', 'Pages of this origin are not admitted (cors).'))
  }

  /** The broker was closed: nothing else ends a connection without subscriptions. */
  endIfIdle(): void {
    if (this.#subscriptions.size > 0) return
    this.#refuse(new SpillwayError('SHUTDOWN', 'The broker was closed.'))
  }

  #awaitOrder(): void {
    const { idleTimeout } = this.#site
    this.#idle = setTimeout(() => {
      this.#refuse(new SpillwayError('INVALID', `No subscription was asked for within ${idleTimeout} ms.`))
    }, idleTimeout)
    this.#idle.unref?.()
  }

  #remember(id: number | undefined, subscribed: Subscribed): void {
    clearTimeout(this.#idle)
    this.#subscriptions.set(id, subscribed)
  }

  /** Only its own: another may have been opened under the same id. */
  #forget(id: number | undefined, subscribed: Subscribed): void {
    if (this.#subscriptions.get(id) !== subscribed) return
    this.#subscriptions.delete(id)
    if (this.#subscriptions.size === 0) this.#awaitOrder()
  }

  /** Whether it is no page of another origin, or one of an origin that `passes`. */
  #isOwnOr(passes: (origin: string) => boolean): boolean {
    const origin = this.#header('origin')
    if (origin === undefined || passes(origin)) return true
    // Who is on the wire makes pages of http://host, and must not speak for those of https://host.
    const isSafe = !this.#request.socket?.encrypted || origin.startsWith('https:')
    return isSafe && hostOf(origin) === this.#header('host')
  }

  #header(name: string): string | undefined {
    const value = this.#request.headers[name]
    return Array.isArray(value) ? value.join(', ') : value
  }

  #obey(order: Order): void {
    if ('unsubscribe' in order) {
      this.#subscriptions.get(order.unsubscribe)?.gone()
      return
    }
    if (this.#subscriptions.has(order.id)) {
      const called = order.id === undefined ? 'without an id' : `with id ${order.id}`
      throw new SpillwayError('INVALID', `There is a subscription ${called} already.`)
    }
    const { id } = order
    const subscribed: Subscribed = { gone: () => this.#forget(id, subscribed) }
    this.#remember(id, subscribed)
    this.#subscribe(order, subscribed).catch((error: SpillwayError) => {
      // It may have been given up meanwhile, and its id be another's.
      if (this.#subscriptions.get(id) !== subscribed) return
      this.#refusals++
      this.#end(id, error)
      if (this.#refusals >= mostRefusals) this.#socket.close(error.closeCode, error.code)
    })
  }

  async #subscribe(
    { subscribe, id, token }: Extract<Order, { subscribe: string }>,
    subscribed: Subscribed,
  ): Promise<void> {
    const stream = await this.#site.faces.open(subscribe, this.#encoder(id), {
      address: this.#request.socket?.remoteAddress ?? '',
      header: (name) => {
        // The token of the message goes before whatever the connection began with.
        if (token !== undefined && name === 'authorization') return `Bearer ${token}`
        if (token !== undefined && name === 'x-nomad-token') return undefined
        const isHidden = name === 'cookie' && !this.#isOwnOr((origin) => this.#site.cors.trusts(origin))
        return isHidden ? undefined : this.#header(name)
      },
      onGone: (listener) => {
        subscribed.gone = () => {
          this.#forget(id, subscribed)
          subscribed.gone = () => {}
          listener()
        }
      },
    })
    if (this.#socket.readyState !== isOpen || this.#subscriptions.get(id) !== subscribed) {
      subscribed.gone()
      return
    }
    this.#refusals = 0
    subscribed.stream = stream
    stream.open(this.#sink(id, subscribed))
  }

  #encoder(id: number | undefined): Encoder {
    const { encoders, faces } = this.#site
    return getOrMake(encoders, id, () => new Encoder(socketFormat(faces.retry, id)))
  }

  #sink(id: number | undefined, subscribed: Subscribed): Sink {
    const socket = this.#socket
    return {
      write: (piece: Piece) => {
        this.#send(piece.bytes)
        return socket.bufferedAmount < (subscribed.stream as EventStream).highWaterMark
      },
      isWaiting: () => socket.bufferedAmount > 0,
      taken: () => this.#written - socket.bufferedAmount,
      end: (error) => {
        subscribed.gone()
        const isLast = error.code === 'SHUTDOWN' && this.#subscriptions.size === 0
        if (id === undefined || isLast) socket.close(error.closeCode, error.code)
      },
      abort: () => socket.terminate(),
    }
  }

  #send(data: Uint8Array | string): void {
    if (this.#socket.readyState !== isOpen) return
    this.#written += data.length
    this.#socket.send(data, { binary: false }, this.#sent)
  }

  // One for all: what was sent has left, so there may be room.
  readonly #sent = (): void => {
    for (const { stream } of this.#subscriptions.values()) {
      if (stream && this.#socket.bufferedAmount < stream.highWaterMark) stream.drained()
    }
  }

  /** A subscription did not come about. */
  #end(id: number | undefined, error: SpillwayError): void {
    this.#subscriptions.get(id)?.gone()
    // It asks and asks, and reads no answer.
    if (this.#socket.bufferedAmount > mostUnread) {
      this.#socket.terminate()
      return
    }
    const line = closedFrame(error, error.cursor ?? '', this.#site.faces.retry)
    this.#send(`${tagged(id, line)}\n`)
    if (id === undefined) this.#socket.close(error.closeCode, error.code)
  }

  /** The peer does what it must not: everything ends. */
  #refuse(error: SpillwayError): void {
    this.#end(undefined, error)
  }
}

/** One subscription of a connection, from when it was asked for. */
interface Subscribed {
  gone: () => void
  stream?: EventStream
}

type Order =
  | { readonly subscribe: string; readonly id: number | undefined; readonly token: string | undefined }
  | { readonly unsubscribe: number }

/** Throws `INVALID` or `TOO_LARGE`. Its message shows no values of the order: a token may be among them, in the wrong place. */
function parseOrder(data: unknown, isBinary: boolean, most: number): Order {
  const text = String(data)
  if (isBinary) throw new SpillwayError('INVALID', 'A message must be text, got bytes.')
  if (text.length > maxMessage)
    throw new SpillwayError('TOO_LARGE', `A message may have ${maxMessage} characters, got ${text.length}.`)
  let order: Record<string, unknown>
  try {
    order = { ...(JSON.parse(text) as object) } as Record<string, unknown>
  } catch (cause) {
    throw new SpillwayError(
      'INVALID',
      `A message must be a JSON object, got ${text.length} characters that are none.`,
      {
        cause,
      },
    )
  }
  const { subscribe, unsubscribe, id, token } = order
  const isId = (value: unknown): value is number =>
    Number.isInteger(value) && (value as number) >= 1 && (value as number) <= most
  if (isId(unsubscribe)) return { unsubscribe }
  if (typeof subscribe !== 'string') {
    throw new SpillwayError(
      'INVALID',
      `A message must have subscribe, a query, or unsubscribe, an id; got ${shown(Object.keys(order).join(', '))}.`,
    )
  }
  if (id !== undefined && !isId(id))
    throw new SpillwayError('INVALID', `id must be an integer from 1 to ${most}, got ${shown(id)}.`)
  if (token !== undefined && typeof token !== 'string')
    throw new SpillwayError('INVALID', `token must be a string, got one of type ${typeof token}.`)
  return { subscribe, id, token }
}

/** The lines of NDJSON, each with the id of its subscription. */
function socketFormat(retry: number, id: number | undefined): Format {
  const plain = ndjsonFormat(retry)
  if (id === undefined) return plain
  return {
    ...plain,
    open: (place) => tagged(id, plain.open(place)),
    batch: (batch, events) => tagged(id, plain.batch(batch, events)),
    gap: (gap, cursor) => tagged(id, plain.gap(gap, cursor)),
    heartbeat: (cursor, index) => tagged(id, plain.heartbeat(cursor, index)),
    closed: (error, cursor) => tagged(id, plain.closed(error, cursor)),
  }
}

function tagged(id: number | undefined, line: string): string {
  return id === undefined ? line : `{"id":${id},${line.slice(1)}`
}

function hostOf(origin: string): string | undefined {
  try {
    return new URL(origin).host
  } catch {
    return undefined
  }
}
