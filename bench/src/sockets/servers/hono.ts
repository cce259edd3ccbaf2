import type { Server } from 'node:net'
import { createAdaptorServer } from '@hono/node-server'
import { Hono } from 'hono'
import { type SSEStreamingApi, streamSSE } from 'hono/streaming'
import type { SocketServer } from '../contender.ts'
import { listen } from './listen.ts'

export async function honoSse(): Promise<SocketServer> {
  const streams = new Set<SSEStreamingApi>()
  const app = new Hono().get('/', (context) =>
    streamSSE(context, async (stream) => {
      await stream.write(':ok\n\n')
      streams.add(stream)
      await new Promise<void>((resolve) => stream.onAbort(resolve))
      streams.delete(stream)
    }),
  )
  return {
    port: await listen(createAdaptorServer({ fetch: app.fetch }) as Server),
    readers: () => streams.size,
    publish(events, first) {
      for (const [n, data] of events.entries()) {
        const id = String(first + n)
        for (const stream of streams) void stream.writeSSE({ id, data })
      }
    },
  }
}
