import { createServer, type ServerResponse } from 'node:http'
import { createServer as createHttp2Server, type ServerHttp2Stream } from 'node:http2'
import type { SocketServer } from '../contender.ts'
import { sseText } from '../event.ts'
import { listen } from './listen.ts'

const head = { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' }

/** What one writes by hand: an event is a string that goes to every response. */
export async function http(): Promise<SocketServer> {
  const responses = new Set<ServerResponse>()
  const server = createServer((_request, response) => {
    response.writeHead(200, head).write(':ok\n\n')
    responses.add(response)
    response.on('close', () => responses.delete(response))
  })
  return { port: await listen(server), readers: () => responses.size, publish: writeEach(responses) }
}

export async function http2(): Promise<SocketServer> {
  const streams = new Set<ServerHttp2Stream>()
  const server = createHttp2Server().on('stream', (stream: ServerHttp2Stream) => {
    stream.respond({ ':status': 200, ...head })
    stream.write(':ok\n\n')
    streams.add(stream)
    stream.on('close', () => streams.delete(stream)).on('error', () => {})
  })
  return { port: await listen(server), readers: () => streams.size, publish: writeEach(streams) }
}

export function writeEach(writers: Iterable<{ write(text: string): unknown }>): SocketServer['publish'] {
  return (events, first) => {
    for (const [n, text] of events.entries()) {
      const event = sseText(first + n, text)
      for (const writer of writers) writer.write(event)
    }
  }
}
