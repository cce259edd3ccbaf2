import { type IncomingMessage, ServerResponse } from 'node:http'
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2'
import type { Socket } from 'node:net'
import type { Writable } from 'node:stream'
import type { AnyBroker } from '../core/broker.ts'
import { SpillwayError } from '../core/errors.ts'
import type { Piece, Sink } from './fan-out/sink.ts'
import type { EventStream } from './fan-out/stream.ts'
import {
  createHandler,
  type Denial,
  type HandlerOptions,
  type HandlerRequest,
  type HandlerResponse,
} from './handler.ts'

export type { LimitOptions, Place } from './limits.ts'
export { createHandlerState, type HandlerState } from './state.ts'
export type { Denial, HandlerOptions }

/**
 * Answers a request of `node:http`, or of `node:http2` through its compatibility API. Paths that are not the broker's go to
 * `next`, or are answered 404 without it.
 */
export type NodeHandler = (
  request: IncomingMessage | Http2ServerRequest,
  response: ServerResponse | Http2ServerResponse,
  next?: () => void,
) => void

/** The HTTP faces of `broker` for `node:http` and `node:http2`. Throws `CONFIG` for a bad option. */
export function toNodeHandler(broker: AnyBroker, options: HandlerOptions = {}): NodeHandler {
  const handle = createHandler(broker, options)
  return (anyRequest, anyResponse, next) => {
    // What is used of the two is the same in HTTP/2.
    const request = anyRequest as IncomingMessage
    const response = anyResponse as ServerResponse
    const answer = () => {
      const exchange = new NodeRequest(request, response)
      handle(exchange, next ? undefined : exchange.path).then(
        (reply) => {
          if (reply) send(reply, request, response)
          else next?.()
        },
        () => response.destroy(),
      )
    }
    // A request that was sent behind another one waits for that answer, which may be a stream that never ends: nothing is
    // opened for it until its connection is free.
    if (response.socket) answer()
    else if (queue(request.socket, 1) > maxQueued) request.socket.destroy()
    else {
      response.once('socket', (socket) => {
        queue(socket, -1)
        answer()
      })
    }
  }
}

/** How many requests may wait behind an answer on one connection: what is behind a stream waits for ever. */
const maxQueued = 100
const queued = new WeakMap<Socket, number>()

function queue(socket: Socket, by: number): number {
  const length = (queued.get(socket) ?? 0) + by
  queued.set(socket, length)
  return length
}

class NodeRequest implements HandlerRequest {
  readonly method: string
  readonly address: string
  readonly path: string
  readonly query: string
  readonly #request: IncomingMessage
  readonly #response: ServerResponse

  constructor(request: IncomingMessage, response: ServerResponse) {
    this.#request = request
    this.#response = response
    this.method = request.method ?? 'GET'
    this.address = request.socket.remoteAddress ?? ''
    const [path, query] = splitUrl(request.url ?? '')
    this.path = path
    this.query = query
  }

  header(name: string): string | undefined {
    const value = this.#request.headers[name]
    return Array.isArray(value) ? value.join(', ') : value
  }

  body(): AsyncIterable<Uint8Array> {
    if (this.#request.readableDidRead) return readBefore(this.#request)
    // Reading may stop early, and the answer must still find its connection.
    return this.#request.iterator({ destroyOnReturn: false })
  }

  onGone(listener: () => void): void {
    if (hasGone(this.#response)) listener()
    else this.#response.on('close', listener)
  }
}

/** The body of a request that middleware has read, as it left it. Numbers beyond 2^53 are no longer what they were. */
async function* readBefore({ body }: IncomingMessage & { body?: unknown }): AsyncGenerator<Uint8Array> {
  if (body === undefined) {
    throw new SpillwayError('CONFIG', 'The body was read before it came here. Mount Spillway before what reads it.')
  }
  yield body instanceof Uint8Array ? body : Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
}

/** A response of HTTP/2 says it by its stream only. */
function hasGone(
  response: ServerResponse & { readonly stream?: { readonly destroyed: boolean } | undefined },
): boolean {
  return response.closed || response.destroyed || response.stream?.destroyed === true
}

function splitUrl(target: string): [string, string] {
  // [RFC 9112, 3.2.2] A proxy may send the whole URL.
  const url = target.replace(/^https?:\/\/[^/?]*/i, '')
  const at = url.indexOf('?')
  return at < 0 ? [url, ''] : [url.slice(0, at), url.slice(at + 1)]
}

function send({ status, headers, body }: HandlerResponse, request: IncomingMessage, response: ServerResponse): void {
  // The peer may have gone meanwhile; `onGone` has told so.
  if (hasGone(response)) return
  if (typeof body !== 'string') {
    response.writeHead(status, headers)
    // A body that nobody reads would hide that the peer has gone.
    request.resume()
    connect(body, response)
    return
  }
  response.setHeader('content-length', Buffer.byteLength(body))
  if (request.complete) {
    response.writeHead(status, headers).end(request.method === 'HEAD' ? undefined : body)
    return
  }
  // The rest of a refused body would be taken for the next request, and a peer that still sends it would see a reset
  // connection instead of the answer.
  if (request.httpVersionMajor < 2) response.setHeader('connection', 'close')
  response.writeHead(status, headers).write(body)
  const end = () => response.end()
  setTimeout(end, lingerMs).unref()
  request.on('end', end).on('error', end).resume()
}

/** How long the rest of a refused body is thrown away before the connection is closed. */
const lingerMs = 2000

function connect(stream: EventStream, response: ServerResponse): void {
  const { socket } = response
  // Whoever replaced `write`, such as a compressing middleware, must get all that is sent.
  if (!socket || response.write !== ServerResponse.prototype.write) {
    // In HTTP/2 each stream holds its own bytes.
    limitWaiting((response as { stream?: Writable }).stream ?? socket, stream.highWaterMark)
    response.on('drain', () => stream.drained())
    stream.open(new ResponseSink(response))
    return
  }
  if (!streams.has(socket)) socket.on('drain', drained)
  streams.set(socket, stream)
  limitWaiting(socket, stream.highWaterMark)
  // Headers and first message in one packet.
  socket.cork()
  response.flushHeaders()
  stream.open(new SocketSink(response, socket))
  socket.uncork()
}

/** The stream that a socket carries; a later one may follow on the same connection. */
const streams = new WeakMap<Socket, EventStream>()

// One function for all: a listener of its own costs each connection some 200 bytes.
function drained(this: Socket): void {
  streams.get(this)?.drained()
}

/** Sends through a response, whatever it does with it. */
class ResponseSink implements Sink {
  readonly #response: ServerResponse
  #written = 0

  constructor(response: ServerResponse) {
    this.#response = response
  }

  write({ bytes }: Piece): boolean {
    this.#written += bytes.length
    return this.#response.write(bytes)
  }

  isWaiting(): boolean {
    return this.#response.writableLength > 0
  }

  taken(): number {
    // In HTTP/2 the connection is busy with others, too.
    if (this.#response.req.httpVersionMajor > 1) return this.#written - this.#response.writableLength
    return takenBy(this.#response.socket)
  }

  end(): void {
    this.#response.end()
  }

  abort(): void {
    this.#response.destroy()
  }
}

/**
 * Sends past the response, whose headers are out, straight to its socket: the chunk around a piece is made once for all
 * connections, and a write costs half as much. The response still writes the last chunk and hands the connection on.
 */
class SocketSink implements Sink {
  readonly #response: ServerResponse
  readonly #socket: Socket

  constructor(response: ServerResponse, socket: Socket) {
    this.#response = response
    this.#socket = socket
  }

  write(piece: Piece): boolean {
    // [RFC 9112, 7.1] A client of HTTP/1.0 knows no chunks; its body ends with the connection.
    const bytes = this.#response.chunkedEncoding ? piece.framed(chunk) : piece.bytes
    // A write that is larger than the high-water mark is not full if the kernel took it all.
    return this.#socket.write(bytes) || handleOf(this.#socket)?.writeQueueSize === 0
  }

  isWaiting(): boolean {
    return this.#socket.writableLength > 0
  }

  taken(): number {
    return takenBy(this.#socket)
  }

  end(): void {
    this.#response.end()
  }

  abort(): void {
    this.#response.destroy()
  }
}

/** What a server was made with holds for all its connections, and newer Nodes let 64 KiB wait. */
function limitWaiting(writable: Writable | null, highWaterMark: number): void {
  const state = (writable as { _writableState?: { highWaterMark: number } } | null)?._writableState
  if (state) state.highWaterMark = highWaterMark
}

function chunk(bytes: Uint8Array): { framed: Uint8Array; start: number } {
  const size = Buffer.from(`${bytes.length.toString(16)}\r\n`)
  return { framed: Buffer.concat([size, bytes, lineBreak]), start: size.length }
}

const lineBreak = Buffer.from('\r\n')

/** Bytes that the kernel took. Node's own time-outs look at these two numbers; without them only whole writes can be seen. */
function takenBy(socket: Socket | null): number {
  if (!socket) return 0
  const handle = handleOf(socket)
  if (handle?.bytesWritten === undefined || handle.writeQueueSize === undefined) {
    return socket.bytesWritten - socket.writableLength
  }
  return handle.bytesWritten - handle.writeQueueSize
}

function handleOf(socket: Socket): { bytesWritten?: number; writeQueueSize?: number } | null | undefined {
  return (socket as Socket & { _handle?: { bytesWritten?: number; writeQueueSize?: number } | null })._handle
}
