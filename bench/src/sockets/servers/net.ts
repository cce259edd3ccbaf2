import { createServer, type Socket } from 'node:net'
import type { SocketServer } from '../contender.ts'
import { sseText } from '../event.ts'
import { listen } from './listen.ts'

const head = 'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n:ok\n\n'

export const writePerEvent = (): Promise<SocketServer> => bare((events) => events)
export const writePerBurst = (): Promise<SocketServer> => bare((events) => [Buffer.concat(events)])

/** No parser, no chunks, no promises: the least that Node can do. */
async function bare(writesFor: (events: readonly Buffer[]) => readonly Buffer[]): Promise<SocketServer> {
  const sockets = new Set<Socket>()
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
    socket.once('data', () => {
      socket.write(head)
      sockets.add(socket)
    })
  })
  return {
    port: await listen(server),
    readers: () => sockets.size,
    publish(events, first) {
      const bytes = events.map((text, n) => Buffer.from(sseText(first + n, text)))
      for (const write of writesFor(bytes)) for (const socket of sockets) socket.write(write)
    },
  }
}
