import assert from 'node:assert/strict'
import { Agent, get } from 'node:http'
import { test } from 'node:test'
import { connect } from '@nats-io/transport-node'
import { createBroker } from 'spillway'
import { jetstreamLog } from 'spillway/log/jetstream'
import { createServer } from '../src/server.ts'
import { nats, noNats } from './support/edges.ts'

const total = 400
const readers = 1000

/** Reads a history from its beginning to index `total`, and resolves with the bytes that it took. */
function readAll(url: string, agent: Agent): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = get(`${url}/v1/events?from=earliest`, { agent, headers: { accept: 'application/x-ndjson' } })
    request.on('error', reject)
    request.on('response', (response) => {
      let bytes = 0
      let next = 1
      let text = ''
      response.setEncoding('utf8').on('data', (piece: string) => {
        bytes += piece.length
        const lines = (text + piece).split('\n')
        text = lines.pop() ?? ''
        for (const line of lines) {
          const [, index] = /^\{"index":(\d+),/.exec(line) ?? []
          if (index === undefined) continue
          if (Number(index) !== next++) reject(new Error(`Index ${index} came instead of ${next - 1}.`))
        }
        if (next <= total) return
        resolve(bytes)
        request.destroy()
      })
    })
  })
}

test('a thousand readers that are older than memory share what is read from the engine, and memory stays as it is', {
  skip: noNats,
}, async (t) => {
  const engine = await nats(t)
  const connection = await connect({ servers: engine.url })
  const log = await jetstreamLog({ connection, stream: 'events' })
  const filling = createBroker({ log })
  const events = [{ topic: 'Order', type: 't', payload: 'x'.repeat(500) }]
  await filling.publishAll(Array.from({ length: total }, () => ({ events })))
  await filling.close()

  const history = await jetstreamLog({ connection, stream: 'events' })
  const server = createServer({ history, capacity: 10, maxStreams: readers })
  const agent = new Agent({ maxSockets: Number.POSITIVE_INFINITY })
  t.after(async () => {
    agent.destroy()
    await server.close({ grace: 0 })
    await connection.close()
  })
  const url = await server.listen()
  const before = connection.stats().inBytes
  const taken = await Promise.all(Array.from({ length: readers }, () => readAll(url, agent)))
  const sent = taken.reduce((sum, bytes) => sum + bytes, 0)
  const read = connection.stats().inBytes - before
  assert.ok(sent > readers * total * 500)
  assert.ok(read < sent / 20, `${read} bytes were read from the engine for ${sent} that were sent`)
  assert.ok(server.broker.status.retained <= 10)
})
