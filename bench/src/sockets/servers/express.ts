import { createServer, type ServerResponse } from 'node:http'
import express from 'express'
import type { SocketServer } from '../contender.ts'
import { writeEach } from './http.ts'
import { listen } from './listen.ts'

export async function expressSse(): Promise<SocketServer> {
  const responses = new Set<ServerResponse>()
  const app = express()
  app.get('/', (_request, response) => {
    response.set({ 'content-type': 'text/event-stream', 'cache-control': 'no-cache' }).write(':ok\n\n')
    responses.add(response)
    response.on('close', () => responses.delete(response))
  })
  return { port: await listen(createServer(app)), readers: () => responses.size, publish: writeEach(responses) }
}
