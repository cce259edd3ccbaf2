import { fastifySSE } from '@fastify/sse'
import { type FastifyReply, fastify } from 'fastify'
import type { SocketServer } from '../contender.ts'
import { listen } from './listen.ts'

export async function fastifySse(): Promise<SocketServer> {
  const replies = new Set<FastifyReply>()
  const app = fastify()
  await app.register(fastifySSE, { serializer: String })
  app.get('/', { sse: true }, async (_request, reply) => {
    reply.sse.keepAlive()
    await reply.sse.send({ data: 'ok' })
    replies.add(reply)
    reply.sse.onClose(() => replies.delete(reply))
  })
  await app.ready()
  return {
    port: await listen(app.server),
    readers: () => replies.size,
    publish(events, first) {
      for (const [n, data] of events.entries()) {
        const id = String(first + n)
        for (const reply of replies) void reply.sse.send({ id, data })
      }
    },
  }
}
