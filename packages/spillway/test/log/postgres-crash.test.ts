import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { startPostgres } from '@spillway/engines'
import { createBroker } from '../../src/core/broker.ts'
import { until } from '../support/http.ts'
import {
  batch,
  follow,
  keysOf,
  newClient,
  newLog,
  newName,
  noPostgres,
  readAll,
  sharedPostgres,
} from '../support/postgres.ts'
import type { PostgresWriterOptions } from '../support/postgres-writer.ts'
import { seededRandom } from '../support/random.ts'

const skip = noPostgres

test('PostgreSQL killed ten times under load: nothing acknowledged is lost, nobody is told anything twice', {
  skip,
}, async (t) => {
  const random = seededRandom('kills')
  let server = await startPostgres()
  t.after(() => server.remove())
  const name = newName()
  const open = async () => {
    const sql = await newClient(t, { url: server.url, fetch_types: false, backoff: () => 0.05 })
    return newLog(t, { sql, name, patience: 60_000 })
  }
  const logs = [await open(), await open()] as const
  const told = logs.map(follow)
  const broker = createBroker({ log: logs[1], capacity: 1000 })
  const seen: number[] = []
  const reading = (async () => {
    for await (const { index } of broker.subscribe({ from: 'earliest' })) seen.push(index)
  })().catch(() => {})
  const acknowledged = new Map<string, number>()
  let isOver = false
  const publishers = Array.from({ length: 6 }, async (_, publisher) => {
    for (let n = 0; !isOver; n++) {
      const key = `${publisher} ${n}`
      const { indexes } = await (logs[n % 2] as (typeof logs)[0]).append([batch(key)])
      acknowledged.set(key, indexes[0] as number)
    }
  })
  for (let round = 0; round < 10; round++) {
    const before = acknowledged.size
    await until(() => acknowledged.size > before + 20, 'it stores')
    await new Promise((resolve) => setTimeout(resolve, random.below(30)))
    await server.stop('SIGKILL')
    server = await server.restart()
  }
  isOver = true
  await Promise.all(publishers)
  await Promise.all(logs.map((log) => log.catchUp?.(Number.MAX_SAFE_INTEGER)))
  const stored = await readAll(logs[0])
  assert.deepEqual(new Map(stored.map(({ index, events }) => [events[0]?.key as string, index])), acknowledged)
  assert.equal(stored.length, acknowledged.size)
  for (const batches of told) assert.deepEqual(keysOf(batches), keysOf(stored))
  await until(() => seen.length === stored.length, 'all are read')
  assert.deepEqual(
    seen,
    stored.map(({ index }) => index),
  )
  await broker.close()
  await reading
})

/** A server in a process of its own, and what it said was stored. */
class Server {
  readonly acknowledged = new Map<number, number>()
  readonly #child: ChildProcess
  #rest = ''

  constructor(t: TestContext, options: PostgresWriterOptions) {
    const program = fileURLToPath(new URL('../support/postgres-writer.js', import.meta.url))
    const args = [program, JSON.stringify(options)]
    this.#child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    t.after(() => this.#child.kill('SIGKILL'))
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      const lines = (this.#rest + text).split('\n')
      this.#rest = lines.pop() as string
      for (const line of lines) {
        const [n, index] = line.split(' ').map(Number)
        this.acknowledged.set(n as number, index as number)
      }
    })
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await once(this.#child, 'close')
  }
}

test('server processes are killed under load: each publish that is repeated under its id is stored once', {
  skip,
}, async (t) => {
  const { url } = await sharedPostgres()
  const name = newName()
  const log = await newLog(t, { name })
  const told = follow(log)
  const acknowledged = [new Map<number, number>(), new Map<number, number>()]
  let servers: Server[] = []
  for (let round = 0; round < 4; round++) {
    servers = acknowledged.map((before, id) => {
      const first = Math.max(-1, ...before.keys()) + 1 + 8
      const repeat = Array.from({ length: first }, (_, n) => n).filter((n) => !before.has(n))
      return new Server(t, { url, name, id: String(id), first, repeat })
    })
    await until(() => servers.every((server) => server.acknowledged.size > 40), 'they publish')
    await Promise.all(servers.map((server) => server.kill()))
    for (const [n, server] of servers.entries()) {
      for (const [number, index] of server.acknowledged) acknowledged[n]?.set(number, index)
    }
  }
  await log.catchUp?.(Number.MAX_SAFE_INTEGER)
  const stored = await readAll(log)
  const keys = stored.map(({ events }) => events[0]?.key)
  assert.equal(new Set(keys).size, keys.length, 'one is stored twice')
  const byIndex = new Map(stored.map(({ index, events }) => [index, events[0]?.key]))
  for (const [id, numbers] of acknowledged.entries()) {
    for (const [n, index] of numbers) assert.equal(byIndex.get(index), `${id} ${n}`)
  }
  assert.deepEqual(keysOf(told), keysOf(stored))
})
