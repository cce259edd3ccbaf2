import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import { type TestContext, test } from 'node:test'
import { promisify } from 'node:util'
import { createBroker, memoryLog, type Rights, SpillwayError } from 'spillway'
import { createClient } from 'spillway/client'
import { shareLog } from 'spillway/shared'
import type { Authenticator } from '../src/auth/authenticator.ts'
import { silentLog } from '../src/log.ts'
import { Metrics } from '../src/metrics.ts'
import { createServer, type ServerOptions, type SpillwayServer } from '../src/server.ts'
import type { SiteOptions } from '../src/site.ts'
import { HttpThreads } from '../src/threads/http-threads.ts'
import { event } from './support/events.ts'
import { folder } from './support/folder.ts'
import { run } from './support/program.ts'

async function served(t: TestContext, options: ServerOptions = {}): Promise<{ server: SpillwayServer; url: string }> {
  const server = createServer({ threads: 2, ...options })
  t.after(() => server.close({ grace: 0 }))
  return { server, url: await server.listen() }
}

/** Two threads that can be killed. */
async function threadsOf(t: TestContext, options: SiteOptions = {}) {
  const history = shareLog(memoryLog({ capacity: 100_000 }))
  const broker = createBroker({ log: history })
  const metrics = new Metrics()
  const buffer = { capacity: 1000, maxBytes: undefined, maxAge: undefined }
  const problem = () => undefined
  const parts = { broker, history, auth: undefined, certificate: undefined, metrics, problem, log: silentLog, buffer }
  const threads = new HttpThreads(2, { ...parts, maxConnections: 1000 }, options)
  t.after(() => {
    metrics.close()
    return threads.close(0)
  })
  const { port } = await threads.listen({ port: 0, host: '127.0.0.1' })
  return { threads, url: `http://127.0.0.1:${port}` }
}

/** Streams that are open, over connections of their own, so that the kernel spreads them over the threads. */
function follow(url: string, count: number, token = ''): Promise<Response[]> {
  const headers = { accept: 'application/x-ndjson', authorization: `Bearer ${token}`, connection: 'close' }
  return Promise.all(Array.from({ length: count }, () => fetch(`${url}/v1/events`, { headers })))
}

async function messagesOf(response: Response): Promise<Record<string, unknown>[]> {
  const lines = (await response.text()).trim().split('\n')
  return lines.map((line) => JSON.parse(line))
}

function lastWord(messages: readonly Record<string, unknown>[]): string | undefined {
  return (messages.at(-1)?.closed as { code: string } | undefined)?.code
}

async function streamsByThread(url: string): Promise<number[]> {
  const text = await (await fetch(`${url}/metrics`)).text()
  return [...text.matchAll(/^spillway_thread_streams\{thread="\d+"\} (\d+)$/gm)].map(([, count]) => Number(count))
}

test('readers of all threads get what any of them is given to publish', async (t) => {
  const { server, url } = await served(t)
  const readers = await follow(url, 40)
  const spread = await streamsByThread(url)
  assert.equal(spread.length, 2)
  assert.ok(Math.min(...spread) > 0, `all are with one thread: ${spread}`)
  for (let n = 1; n <= 40; n++) {
    const body = JSON.stringify(event(String(n)))
    const headers = { 'content-type': 'application/json', connection: 'close' }
    const answer = await fetch(`${url}/v1/events`, { method: 'POST', headers, body })
    assert.equal(((await answer.json()) as { index: number }).index, n)
  }
  const status = (await (await fetch(`${url}/v1/status`)).json()) as Record<string, unknown>
  assert.deepEqual([status.newest, status.streams, status.subscriptions], [40, 40, 40])
  await server.close()
  for (const reader of readers) {
    const messages = await messagesOf(reader)
    const indexes = messages.flatMap(({ index }) => index ?? [])
    assert.deepEqual(
      indexes,
      Array.from({ length: 40 }, (_, n) => n + 1),
    )
    assert.equal(lastWord(messages), 'SHUTDOWN')
  }
})

test('threads that are killed are replaced: readers miss nothing, and what is published through them is stored once', async (t) => {
  const { threads, url } = await threadsOf(t)
  const [publishers, each] = [5, 240]
  const total = publishers * each
  const client = createClient({ url })
  const readers = Array.from({ length: 10 }, async () => {
    const seen: string[] = []
    for await (const { gap, events } of client.subscribe({ from: 'earliest' })) {
      assert.equal(gap, undefined)
      for (const { key } of events) seen.push(key)
      if (seen.length === total) break
    }
    return seen
  })
  const told: string[] = []
  const publishing = Array.from({ length: publishers }, async (_, publisher) => {
    for (let n = 1; n <= each; n++) {
      const key = `${publisher} ${n}`
      const index = await client.publish(event(key))
      told[index - 1] = key
      // Requests of the others are on their way.
      if (publisher === 0 && n % 60 === 30) void threads.workers[0]?.terminate()
    }
  })
  await Promise.all(publishing)
  for (const seen of await Promise.all(readers)) assert.deepEqual(seen, told)
})

test('streams are counted over all threads, and a dead thread gives its places back', async (t) => {
  const { threads, url } = await threadsOf(t, { maxStreams: 16 })
  const open = await follow(url, 16)
  assert.ok(open.every(({ status }) => status === 200))
  assert.deepEqual(
    (await follow(url, 4)).map(({ status }) => status),
    [503, 503, 503, 503],
  )
  for (const worker of threads.workers) await worker.terminate()
  await Promise.allSettled(open.map((response) => response.text()))
  let again: Response | undefined
  while (!again?.ok) [again] = await follow(url, 1).catch(() => [])
  assert.deepEqual(
    (await follow(url, 15)).map(({ status }) => status),
    new Array(15).fill(200),
  )
})

test('connections are counted over all threads', async (t) => {
  const { url } = await served(t, { maxConnections: 10 })
  const open = await follow(url, 10)
  assert.ok(open.every(({ ok }) => ok))
  const more = await Promise.allSettled(Array.from({ length: 8 }, () => follow(url, 1)))
  assert.ok(more.every(({ status }) => status === 'rejected'))
})

/** Knows the tokens that a test lets in. */
class TestAuth implements Authenticator {
  readonly known = new Map<string, Rights>()
  readonly #listeners = new Set<(subject: string | undefined) => void>()

  rightsOf(token: string): Rights {
    const rights = this.known.get(token)
    if (!rights) throw new SpillwayError('UNAUTHORIZED', 'The token is not valid.')
    return rights
  }

  onChange(listener: (subject: string | undefined) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  revoke(token: string): void {
    const subject = this.known.get(token)?.subject
    this.known.delete(token)
    for (const tell of this.#listeners) tell(subject)
  }

  async close(): Promise<void> {}
}

test('a revocation reaches the readers of every thread before anything that is published after it', async (t) => {
  const auth = new TestAuth()
  const { server, url } = await served(t, { auth })
  for (let round = 0; round < 20; round++) {
    const [gone, stays] = [`gone ${round}`, `stays ${round}`]
    for (const token of [gone, stays]) auth.known.set(token, { read: 'all', publish: [], subject: token })
    const lost = await follow(url, 6, gone)
    const [kept] = await follow(url, 1, stays)
    const before = await server.broker.publish(event('before'))
    auth.revoke(gone)
    const after = await server.broker.publish(event('after'))
    for (const reader of lost) {
      const messages = await messagesOf(reader)
      const indexes = messages.flatMap(({ index }) => index ?? [])
      assert.ok(!indexes.includes(after), `round ${round}: ${JSON.stringify(messages)}`)
      assert.ok(indexes.every((index) => (index as number) <= before))
      assert.equal(lastWord(messages), 'REVOKED')
    }
    auth.revoke(stays)
    assert.ok((await messagesOf(kept as Response)).some(({ index }) => index === after))
  }
})

test('a ticket of one thread is good in any, once', async (t) => {
  const auth = new TestAuth()
  auth.known.set('token', { read: 'all', publish: [], subject: 'me' })
  const { url } = await served(t, { auth })
  for (let n = 0; n < 20; n++) {
    const headers = { authorization: 'Bearer token', connection: 'close' }
    const answer = await fetch(`${url}/v1/tickets`, { method: 'POST', headers })
    const { ticket } = (await answer.json()) as { ticket: string }
    const use = () => fetch(`${url}/v1/events?ticket=${ticket}`, { headers: { connection: 'close' } })
    const first = await use()
    assert.equal(first.status, 200)
    await first.body?.cancel()
    assert.equal((await use()).status, 401)
  }
})

test('the audit log and the counters know of refusals in every thread', async (t) => {
  const auth = new TestAuth()
  auth.known.set('operator', { read: 'all', publish: [], subject: 'operator' })
  const warnings: string[] = []
  const { url } = await served(t, { auth, log: { ...silentLog, warn: (message) => void warnings.push(message) } })
  assert.ok((await follow(url, 10, 'nobody')).every(({ status }) => status === 401))
  const headers = { authorization: 'Bearer operator' }
  const text = await (await fetch(`${url}/metrics`, { headers })).text()
  assert.match(text, /^spillway_denied_total\{code="UNAUTHORIZED",action="read"\} 10$/m)
  assert.equal(warnings.filter((warning) => warning.startsWith('Denied: read')).length, 10)
})

test('a second server does not share the port of the first', async (t) => {
  const { url } = await served(t)
  const second = createServer({ threads: 2 })
  t.after(() => second.close())
  await assert.rejects(second.listen({ port: Number(new URL(url).port) }), { code: 'EADDRINUSE' })
})

test('threads that cannot be are refused by name', async (t) => {
  assert.throws(() => createServer({ threads: 65 }), {
    code: 'CONFIG',
    message: /^threads must be an integer from 0 to 64/,
  })
  const { code, stderr } = await run(t, ['serve', '--memory', '--threads', 'many'])
  assert.equal(code, 2)
  assert.match(stderr, /--threads/)
})

test('a server in threads that was closed holds nothing that keeps its process alive', async (t) => {
  const program = path.join(await folder(t), 'program.mjs')
  const server = new URL('../src/server.js', import.meta.url)
  await writeFile(
    program,
    `import { createServer } from '${server}'
    const server = createServer({ threads: 2 })
    await fetch((await server.listen()) + '/healthz')
    await server.close()
    console.log('closed')`,
  )
  const { stdout } = await promisify(execFile)(process.execPath, [program])
  assert.equal(stdout, 'closed\n')
})
