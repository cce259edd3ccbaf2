import { createServer } from 'node:http'
import { createServer as createHttp2Server } from 'node:http2'
import type { Server } from 'node:net'
import { createBroker, JsonText } from 'spillway'
import { type HandlerOptions, toNodeHandler } from 'spillway/node'
import type { SocketServer } from '../contender.ts'
import { listen } from './listen.ts'

type Listener = ReturnType<typeof toNodeHandler>

export const overHttp = (): Promise<SocketServer> => serve((listener) => createServer(listener))
export const inRounds = (): Promise<SocketServer> => serve((listener) => createServer(listener), { roundInterval: 10 })

// Its types speak of HTTP/1.1 only; whether it works is what conformance asks.
export const overHttp2 = (): Promise<SocketServer> =>
  serve((listener) => createHttp2Server(listener as unknown as Parameters<typeof createHttp2Server>[0]))

async function serve(create: (listener: Listener) => Server, options: HandlerOptions = {}): Promise<SocketServer> {
  const broker = createBroker({ capacity: 2048 })
  return {
    port: await listen(create(toNodeHandler(broker, options))),
    readers: () => broker.status.subscriptions,
    publish(events) {
      for (const text of events) {
        broker.publish({ topic: 'bench', type: 'event', payload: new JsonText(text) }).catch((error) => {
          throw error
        })
      }
    },
  }
}
