import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { AnyBroker } from '../core/broker.ts'
import { createHandler, type HandlerOptions, type HandlerRequest, type HandlerResponse } from './handler.ts'
import type { Sink, StreamBody } from './stream.ts'

export type { HandlerOptions }

/** Answers a request of `node:http`. Paths that are not the broker's go to `next`, or are answered 404 without it. */
export type NodeHandler = (request: IncomingMessage, response: ServerResponse, next?: () => void) => void

/** The HTTP faces of `broker` for `node:http`. Throws `CONFIG` for a bad option. */
export function toNodeHandler(broker: AnyBroker, options: HandlerOptions = {}): NodeHandler {
  const handle = createHandler(broker, options)
  return (request, response, next) => {
    const answer = () => {
      handle(fromRequest(request, response)).then(
        (reply) => {
          if (reply) send(reply, request, response)
          else if (next) next()
          else send(notFound, request, response)
        },
        () => response.destroy(),
      )
    }
    // A request that was sent behind another one waits for that answer, which may be a stream that never ends: nothing is
    // opened for it until its connection is free.
    if (response.socket) answer()
    else response.once('socket', answer)
  }
}

function fromRequest(request: IncomingMessage, response: ServerResponse): HandlerRequest {
  const [path = '', query = ''] = splitUrl(request.url ?? '')
  return {
    method: request.method ?? 'GET',
    path,
    query,
    header: (name) => {
      const value = request.headers[name]
      return Array.isArray(value) ? value.join(', ') : value
    },
    // Reading may stop early, and the answer must still find its connection.
    body: request.iterator({ destroyOnReturn: false }),
    onGone: (listener) => response.once('close', listener),
  }
}

function send({ status, headers, body }: HandlerResponse, request: IncomingMessage, response: ServerResponse): void {
  // The peer may have gone meanwhile; `onGone` has told so.
  if (response.destroyed) return
  if (typeof body !== 'string') {
    response.writeHead(status, headers)
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
  response.writeHead(status, { ...headers, connection: 'close' }).write(body)
  const end = () => response.end()
  setTimeout(end, lingerMs).unref()
  request.on('end', end).on('error', end).resume()
}

/** How long the rest of a refused body is thrown away before the connection is closed. */
const lingerMs = 2000

function connect(stream: StreamBody, response: ServerResponse): void {
  const sink: Sink = {
    write: (bytes) => response.write(bytes),
    isWaiting: () => response.writableLength > 0,
    taken: () => takenBy(response.socket),
    end: () => response.end(),
    abort: () => response.destroy(),
  }
  response.on('drain', () => stream.drained())
  stream.open(sink)
}

/** Bytes that the kernel took. Node's own time-outs look at these two numbers; without them only whole writes can be seen. */
function takenBy(socket: Socket | null): number {
  if (!socket) return 0
  const { _handle: handle } = socket as Socket & { _handle?: { bytesWritten?: number; writeQueueSize?: number } | null }
  if (handle?.bytesWritten === undefined || handle.writeQueueSize === undefined)
    return socket.bytesWritten - socket.writableLength
  return handle.bytesWritten - handle.writeQueueSize
}

function splitUrl(target: string): [string, string] {
  // [RFC 9112, 3.2.2] A proxy may send the whole URL.
  const url = target.replace(/^https?:\/\/[^/?]*/i, '')
  const at = url.indexOf('?')
  return at < 0 ? [url, ''] : [url.slice(0, at), url.slice(at + 1)]
}

const notFound: HandlerResponse = {
  status: 404,
  headers: { 'content-type': 'application/problem+json', 'cache-control': 'no-store' },
  body: JSON.stringify({
    type: 'about:blank',
    title: 'NOT_FOUND',
    status: 404,
    code: 'NOT_FOUND',
    detail: 'Nothing is served at this path.',
  }),
}
