import { createServer } from 'node:http'
import { WebSocketServer } from 'ws'
import type { SocketServer } from '../contender.ts'
import { listen } from './listen.ts'

export async function webSocket(): Promise<SocketServer> {
  const server = createServer()
  const sockets = new WebSocketServer({ server, perMessageDeflate: false })
  return {
    port: await listen(server),
    readers: () => sockets.clients.size,
    publish(events) {
      for (const text of events) {
        const bytes = Buffer.from(text)
        for (const socket of sockets.clients) socket.send(bytes, { binary: false })
      }
    },
  }
}
