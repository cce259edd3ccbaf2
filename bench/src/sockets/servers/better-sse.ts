import { createServer } from 'node:http'
import { createChannel, createSession } from 'better-sse'
import type { SocketServer } from '../contender.ts'
import { listen } from './listen.ts'

export async function betterSse(): Promise<SocketServer> {
  const channel = createChannel()
  const server = createServer(async (request, response) => {
    // The events are JSON already, so it is spared what it would do for each session.
    const session = await createSession(request, response, { serializer: String })
    channel.register(session)
  })
  return {
    port: await listen(server),
    readers: () => channel.sessionCount,
    publish(events, first) {
      for (const [n, text] of events.entries()) channel.broadcast(text, 'message', { eventId: String(first + n) })
    },
  }
}
