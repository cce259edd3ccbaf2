import { createServer, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { SocketServer } from '../contender.ts'
import { sseText } from '../event.ts'
import type { PathName } from '../scenario.ts'
import { listen } from './listen.ts'

interface Path {
  /** Makes once what all connections share of a tick's events, and gives back what writes it to one of them. */
  prepare(events: readonly string[]): (response: ServerResponse, socket: Socket) => void
  /** Of the sockets, if it is not Node's own. */
  readonly highWaterMark?: number
}

const perTick: Path = {
  prepare(events) {
    const bytes = framed(Buffer.from(events.join('')))
    return (_response, socket) => void socket.write(bytes)
  },
}

const paths: Readonly<Record<PathName, Path>> = {
  'response.write(string)': {
    prepare: (events) => (response) => {
      for (const event of events) response.write(event)
    },
  },
  'response.write(Buffer)': {
    prepare(events) {
      const each = events.map((event) => Buffer.from(event))
      return (response) => {
        for (const bytes of each) response.write(bytes)
      }
    },
  },
  'response.cork + write(Buffer)': {
    prepare(events) {
      const each = events.map((event) => Buffer.from(event))
      return (response) => {
        response.cork()
        for (const bytes of each) response.write(bytes)
        response.uncork()
      }
    },
  },
  'response.write(Buffer) per tick': {
    prepare(events) {
      const bytes = Buffer.from(events.join(''))
      return (response) => void response.write(bytes)
    },
  },
  'socket.write per event': {
    prepare(events) {
      const chunks = events.map((event) => framed(Buffer.from(event)))
      return (_response, socket) => {
        for (const chunk of chunks) socket.write(chunk)
      }
    },
  },
  'socket.cork + write per event': {
    prepare(events) {
      const chunks = events.map((event) => framed(Buffer.from(event)))
      return (_response, socket) => {
        socket.cork()
        for (const chunk of chunks) socket.write(chunk)
        socket.uncork()
      }
    },
  },
  'socket.write per tick (16 KiB)': { ...perTick, highWaterMark: 16 * 1024 },
  'socket.write per tick (64 KiB)': { ...perTick, highWaterMark: 64 * 1024 },
  'socket.write per tick (1 MiB)': { ...perTick, highWaterMark: 1024 * 1024 },
  'socket.write(string) per tick': {
    prepare(events) {
      const text = framed(Buffer.from(events.join(''))).toString()
      return (_response, socket) => void socket.write(text)
    },
  },
  'socket.cork + frame apart': {
    prepare(events) {
      const parts = framedApart(events)
      return (_response, socket) => {
        socket.cork()
        for (const part of parts) socket.write(part)
        socket.uncork()
      }
    },
  },
  'socket._writev + frame apart': {
    prepare(events) {
      const parts = framedApart(events).map((chunk) => ({ chunk, encoding: 'buffer' }))
      return (_response, socket) => (socket as VectorSocket)._writev(parts, (error) => error && socket.destroy(error))
    },
  },
}

/** Past the queue of the stream: the order is that of the handle, as long as nobody else writes. */
type VectorSocket = Socket & {
  _writev(parts: readonly { chunk: Buffer; encoding: string }[], done: (error?: Error | null) => void): void
}

/** [RFC 9112, 7.1] One chunk of a body. */
function framed(bytes: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, lineBreak])
}

/** The same, with nothing copied: its size, each event and its end. */
function framedApart(events: readonly string[]): Buffer[] {
  const each = events.map((event) => Buffer.from(event))
  const size = each.reduce((sum, { length }) => sum + length, 0)
  return [Buffer.from(`${size.toString(16)}\r\n`), ...each, lineBreak]
}

const lineBreak = Buffer.from('\r\n')

/** A bare server of node:http whose events all take one way out. */
export async function overPath(name: PathName): Promise<SocketServer> {
  const { prepare, highWaterMark } = paths[name]
  const connections = new Set<{ response: ServerResponse; socket: Socket }>()
  const server = createServer(highWaterMark === undefined ? {} : { highWaterMark }, (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' }).write(':ok\n\n')
    const connection = { response, socket: response.socket as Socket }
    connections.add(connection)
    response.on('close', () => connections.delete(connection))
  })
  return {
    port: await listen(server),
    readers: () => connections.size,
    publish(events, first) {
      const write = prepare(events.map((text, n) => sseText(first + n, text)))
      for (const { response, socket } of connections) write(response, socket)
    },
  }
}
