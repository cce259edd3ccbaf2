import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type Client, type FollowedBatch, type FollowedGap, faces, follow, inParallel } from '../support/follower.ts'
import { post, until } from '../support/http.ts'
import { logPath, noSqlite } from '../support/log-files.ts'
import { type Running, start } from '../support/programs.ts'
import type { Serving } from '../support/serving.ts'

const serving = fileURLToPath(new URL('../support/serving.js', import.meta.url))
const readers = 1000

/** A server in a process of its own whose history is on disk; it can be killed and come back. */
class DurableServer {
  readonly #t: TestContext
  readonly #options: Serving
  #running: Running | undefined
  port = 0

  constructor(t: TestContext, file: string) {
    this.#t = t
    this.#options = { log: { path: file }, broker: { capacity: 100 }, handler: { heartbeat: 500 } }
  }

  async start(): Promise<void> {
    const { port } = this
    this.#running = start(this.#t, process.execPath, [serving, JSON.stringify({ ...this.#options, port })])
    this.port = Number(await this.#running.nextLine())
    assert.ok(this.port > 0, this.#running.complaints())
  }

  async kill(): Promise<void> {
    this.#running?.child.kill('SIGKILL')
    await this.#running?.exit
  }
}

/** Follows across connections. */
class Reader {
  readonly story: (FollowedBatch | FollowedGap)[] = []
  readonly #n: number
  #client: Client | undefined

  constructor(n: number) {
    this.#n = n
  }

  get index(): number {
    return this.#client?.follower.index ?? 0
  }

  get isConnected(): boolean {
    return this.#client?.follower.status === 200
  }

  connect(port: number): void {
    const face = faces[this.#n % 2] as (typeof faces)[number]
    const before = this.#client?.follower
    this.close()
    const client = before ? follow(port, face, before.resumption) : follow(port, face)
    client.follower.index = before?.index ?? 0
    this.#client = client
  }

  /** Keeps what this connection brought. */
  close(): void {
    this.story.push(...(this.#client?.follower.story ?? []))
    this.#client?.socket.destroy()
  }
}

test(`a server with ${readers} readers is killed three times: each reader resumes, and gets every batch once`, {
  skip: noSqlite,
}, async (t) => {
  const server = new DurableServer(t, await logPath(t))
  await server.start()
  const all = Array.from({ length: readers }, (_, n) => new Reader(n))
  t.after(() => {
    for (const reader of all) reader.close()
  })
  const connect = () =>
    inParallel(readers, 100, async (n) => {
      const reader = all[n] as Reader
      reader.connect(server.port)
      await until(() => reader.isConnected, `reader ${n} is there`)
    })
  await connect()
  const acknowledged = new Set<number>()
  for (let round = 1; round <= 3; round++) {
    let killed = false
    const publishing = Promise.all(
      Array.from({ length: 4 }, async () => {
        while (!killed) {
          const answer = await post(server, { topic: 'T', type: 't' }).catch(() => undefined)
          if (answer?.status === 200) acknowledged.add(answer.json.index as number)
        }
      }),
    )
    const goal = round * 150
    await until(() => acknowledged.size >= goal, 'enough was published')
    killed = true
    await server.kill()
    await publishing
    // Some come when there is more than memory holds, and find it in the file.
    await server.start()
    for (let n = 0; n < 120; n++) {
      acknowledged.add((await post(server, { topic: 'T', type: 't' })).json.index as number)
    }
    await connect()
  }
  const last = Math.max(...acknowledged)
  await until(() => all.every(({ index }) => index >= last), 'all have all')
  for (const reader of all) {
    reader.close()
    assert.deepEqual(
      reader.story.map((one) => ('index' in one ? one.index : one)),
      Array.from({ length: last }, (_, n) => n + 1),
    )
  }
  assert.ok(acknowledged.size <= last)
})
