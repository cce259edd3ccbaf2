// An answer that comes token by token, as those of language models do. Its reader leaves amid it and comes back, and the
// server restarts in between: no token is lost, and none comes twice.
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { type Broker, createBroker } from 'spillway'
import { createClient } from 'spillway/client'
import { sqliteLog } from 'spillway/log/sqlite'
import { toNodeHandler } from 'spillway/node'

interface Topics {
  Answer: string
}

const folder = await mkdtemp(path.join(tmpdir(), 'spillway-'))

async function start(port = 0): Promise<{ broker: Broker<Topics>; server: Server; port: number }> {
  const broker = createBroker<Topics>({ log: await sqliteLog({ path: path.join(folder, 'answers.db') }) })
  const server = createServer(toNodeHandler(broker)).listen(port, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  return { broker, server, port: (server.address() as AddressInfo).port }
}

async function write(broker: Broker<Topics>, tokens: readonly string[]): Promise<void> {
  for (const token of tokens) await broker.publish({ topic: 'Answer', type: 'Token', key: 'run-7', payload: token })
}

/** Reads `count` tokens after `cursor`, which a page would keep in its `sessionStorage` together with the text. */
async function read(port: number, cursor: string, count: number): Promise<{ text: string; cursor: string }> {
  const client = createClient<Topics>({ url: `http://127.0.0.1:${port}` })
  const answer = client.subscribe({ topics: { Answer: ['run-7'] }, from: cursor })
  let text = ''
  for (let n = 0; n < count; n++) {
    for (const { payload } of (await answer.next()).events) text += payload
  }
  answer.close()
  return { text, cursor: answer.cursor }
}

const tokens = 'Spillways let through what a dam cannot hold, and hold what it must.'.split(/(?= )/)
const first = await start()
await write(first.broker, tokens.slice(0, 6))
const begun = await read(first.port, 'earliest', 4)
console.log(begun.text)

first.server.close()
await first.broker.close()
const second = await start(first.port)
await write(second.broker, tokens.slice(6))
const rest = await read(second.port, begun.cursor, tokens.length - 4)
console.log(begun.text + rest.text)

second.server.close()
await second.broker.close()
await rm(folder, { recursive: true })
