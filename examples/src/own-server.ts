// The stream in a server of your own, and a reader that resumes over HTTP where it stopped.
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createBroker } from 'spillway'
import { toNodeHandler } from 'spillway/node'

interface Message {
  readonly cursor?: string
  readonly events?: readonly { readonly key: string }[]
}

const broker = createBroker({ capacity: 1000 })
const server = createServer(toNodeHandler(broker)).listen(0, '127.0.0.1')
await once(server, 'listening')
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/events`

/** Reads `count` batches after `from` and gives back the cursor to resume from. */
async function read(from: string, count: number): Promise<string> {
  const { body } = await fetch(`${url}?topic=Order&from=${from}`, { headers: { accept: 'application/x-ndjson' } })
  const decoder = new TextDecoder()
  let left = count
  let rest = ''
  for await (const bytes of body ?? []) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      const { cursor, events } = JSON.parse(line) as Message
      if (!cursor || !events) continue
      console.log(`from ${from === 'earliest' ? 'the start' : 'the cursor'}: order ${events[0]?.key}`)
      if (--left === 0) return cursor
    }
  }
  throw new Error('The stream ended early.')
}

for (let n = 1; n <= 5; n++) await broker.publish({ topic: 'Order', type: 'OrderPlaced', key: `A${n}` })
const cursor = await read('earliest', 2)
await read(cursor, 3)
await broker.close()
server.close()
