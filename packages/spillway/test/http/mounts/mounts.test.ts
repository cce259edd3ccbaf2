import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import type { TestContext } from 'node:test'
import { serve as serveHono } from '@hono/node-server'
import express from 'express'
import fastify from 'fastify'
import { Hono } from 'hono'
import Koa from 'koa'
import { toFetchHandler } from '../../../src/http/fetch.ts'
import { toNodeHandler } from '../../../src/http/node.ts'
import { mountSuite } from '../../../src/testing/index.ts'

/** Serves until the test has ended. Gives the url. */
async function listen(t: TestContext, listener: RequestListener): Promise<string> {
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.close()
    server.closeAllConnections()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

mountSuite('node:http', (broker, options, t) => listen(t, toNodeHandler(broker, options)))

mountSuite('Express below a path', async (broker, options, t) => {
  const app = express()
  app.use('/api', toNodeHandler(broker, options))
  app.use((_request, response) => void response.status(418).end())
  return `${await listen(t, app)}/api`
})

mountSuite('Express after express.json()', async (broker, options, t) => {
  const app = express()
  // It would print what it refuses.
  app.set('env', 'test')
  app.use(express.json())
  app.use(toNodeHandler(broker, options))
  return listen(t, app)
})

mountSuite('Koa', (broker, options, t) => {
  const app = new Koa()
  const handler = toNodeHandler(broker, options)
  app.use((context) => {
    context.respond = false
    handler(context.req, context.res)
  })
  return listen(t, app.callback())
})

mountSuite('Fastify', async (broker, options, t) => {
  const app = fastify()
  const handler = toNodeHandler(broker, options)
  await app.register(async (scope) => {
    // The body is the handler's to read.
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', (_request, _payload, done) => done(null))
    scope.all('/*', (request, reply) => {
      reply.hijack()
      handler(request.raw, reply.raw)
    })
  })
  await app.listen({ port: 0, host: '127.0.0.1' })
  t.after(() => {
    app.server.closeAllConnections()
    return app.close()
  })
  return `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`
})

mountSuite('Hono below a path', async (broker, options, t) => {
  const app = new Hono()
  const handler = toFetchHandler(broker, { prefix: '/api', ...options })
  app.all('/api/*', (context) => handler(context.req.raw))
  const server = serveHono({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' })
  await new Promise((resolve) => server.once('listening', resolve))
  t.after(() => {
    server.close()
    if ('closeAllConnections' in server) server.closeAllConnections()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/api`
})

mountSuite('a Request and a Response alone', (broker, options, t) => {
  const handler = toFetchHandler(broker, options)
  return listen(t, async (incoming, outgoing) => {
    const gone = new AbortController()
    outgoing.on('close', () => gone.abort())
    const method = incoming.method as string
    const response = await handler(
      new Request(`http://server${incoming.url}`, {
        method,
        headers: incoming.headers as Record<string, string>,
        signal: gone.signal,
        ...(method === 'POST' && { body: Readable.toWeb(incoming) as ReadableStream, duplex: 'half' }),
      }),
    )
    outgoing.writeHead(response.status, Object.fromEntries(response.headers))
    outgoing.flushHeaders()
    if (response.body) Readable.fromWeb(response.body as never).pipe(outgoing)
    else outgoing.end()
  })
})
