import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { type TestContext, test } from 'node:test'
import { WebSocket, WebSocketServer } from 'ws'
import { createClient } from '../../src/client/index.ts'
import { createBroker, LocalBroker } from '../../src/core/broker.ts'
import { SpillwayError } from '../../src/core/errors.ts'
import type { EventInput } from '../../src/core/event.ts'
import { memoryLog } from '../../src/core/memory-log.ts'
import { everything, type Rule } from '../../src/core/rights.ts'
import { toFetchHandler } from '../../src/http/fetch.ts'
import { Faces } from '../../src/http/handler.ts'
import { toNodeHandler } from '../../src/http/node.ts'
import { attachWebSocket } from '../../src/http/websocket.ts'
import { type Answer, ask, until } from '../support/http.ts'
import { withCode } from '../support/waiting.ts'

/** What all may read: the last of it says that a stream has come to its end. */
const common: Rule = { topics: { Common: ['*'] } }

interface Right {
  readonly name: string
  readonly rules: readonly Rule[]
  readonly mine: readonly EventInput[]
  /** Each carries the word `secret` wherever it can. */
  readonly hidden: readonly EventInput[]
}

const event = (topic: string, names: Partial<EventInput> = {}): EventInput => ({ topic, type: 'mine', ...names })
const hidden = (topic: string, names: Partial<EventInput> = {}): EventInput => ({
  topic,
  type: 'secret-type',
  payload: { value: 'secret-payload' },
  ...names,
})

const rights: readonly Right[] = [
  {
    name: 'another namespace',
    rules: [{ namespaces: ['ours'] }],
    mine: [event('Job', { namespace: 'ours' })],
    hidden: [hidden('Job', { namespace: 'secret-namespace' }), hidden('Job'), hidden('secret-topic')],
  },
  {
    name: 'another key',
    rules: [{ topics: { Job: ['mine'] } }],
    mine: [event('Job', { key: 'mine' }), event('Job', { key: 'x', filterKeys: ['mine'] })],
    hidden: [hidden('Job', { key: 'secret-key' }), hidden('Job', { key: 'MINE', filterKeys: ['secret-key'] })],
  },
  {
    name: 'a topic that is denied beside one that allows all',
    rules: [{}, { effect: 'deny', topics: { 'secret-topic': ['*'] } }],
    mine: [event('Job'), event('Other', { namespace: 'n' })],
    hidden: [hidden('secret-topic'), hidden('secret-topic', { key: 'mine', namespace: 'n' })],
  },
  {
    name: 'wildcards that overlap',
    rules: [{ topics: { '*': ['mine'] } }, { effect: 'deny', topics: { Job: ['mine'] } }],
    mine: [event('Other', { key: 'mine' })],
    hidden: [hidden('Job', { key: 'mine' }), hidden('Job', { key: 'secret-key', filterKeys: ['mine'] })],
  },
  {
    name: 'a key that is denied in one namespace',
    rules: [{}, { effect: 'deny', topics: { '*': ['secret-key'] }, namespaces: ['n'] }],
    mine: [event('Job', { key: 'secret', namespace: 'm' })],
    hidden: [hidden('Job', { key: 'secret-key', namespace: 'n' })],
  },
]

interface Site {
  readonly broker: LocalBroker
  readonly port: number
  readonly url: string
  readonly fetch: (request: Request) => Promise<Response>
  /** Where history stood before the events of the test. */
  readonly before: string
  /** Publishes all of it, and the mark of the end. */
  publish(): Promise<void>
}

const headers = { authorization: 'Bearer limited' }
const isMark = (text: string): boolean => text.includes('end-mark')

async function site(t: TestContext, { rules, mine, hidden }: Right, capacity = 1000, keep = 1000): Promise<Site> {
  const broker = createBroker({
    capacity,
    log: memoryLog({ capacity: keep }),
    authorize: ({ token }) => {
      if (token === 'limited') return { read: [...rules, common], publish: [] }
      if (token === 'publisher') return everything
      throw new SpillwayError('UNAUTHORIZED', 'no token')
    },
  }) as unknown as LocalBroker
  const compileFilter = (expression: string) => (event: unknown) => {
    assert.doesNotMatch(JSON.stringify(event), /secret-/, 'a filter is shown nothing that may not be read')
    return expression === 'true'
  }
  const options = { compileFilter, heartbeat: 100 }
  const http = createServer(toNodeHandler(broker, options))
  const sockets = new WebSocketServer({ server: http, path: '/v1/events' })
  attachWebSocket(broker, sockets, options)
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  t.after(async () => {
    for (const socket of sockets.clients) socket.terminate()
    http.close()
    http.closeAllConnections()
    await broker.close()
  })
  const { port } = http.address() as AddressInfo
  await broker.publish(event('Common', { type: 'first' }))
  return {
    broker,
    port,
    url: `http://127.0.0.1:${port}`,
    fetch: toFetchHandler(broker, options),
    before: broker.status.cursor,
    async publish() {
      // In a batch together, and each alone.
      await broker.publish([...mine, ...hidden])
      for (const one of [...hidden, ...mine]) await broker.publish(one)
      await broker.publish(event('Common', { type: 'end-mark' }))
    },
  }
}

/** Reads a body until the mark. */
async function bodyOf(response: Response): Promise<string> {
  assert.equal(response.status, 200, await (response.ok ? '' : response.text()))
  let text = [...response.headers].join('\n')
  const reader = (response.body as ReadableStream<Uint8Array>).getReader()
  while (!isMark(text)) {
    const { done, value } = await reader.read()
    if (done) break
    text += Buffer.from(value).toString()
  }
  await reader.cancel()
  return text
}

async function socketText({ url }: Site, query: string): Promise<string> {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/events`)
  let text = ''
  try {
    await new Promise<void>((resolve, reject) => {
      socket.on('open', () => socket.send(JSON.stringify({ subscribe: query, token: 'limited' })))
      socket.on('message', (data) => {
        text += data
        if (isMark(text)) resolve()
      })
      socket.on('close', () => reject(new Error(`closed after ${text}`)))
    })
  } finally {
    socket.terminate()
  }
  return text
}

async function clientText({ url }: Site, from: string): Promise<string> {
  let text = ''
  for await (const batch of createClient({ url, headers }).subscribe({ from })) {
    text += JSON.stringify(batch)
    if (isMark(text)) break
  }
  return text
}

async function inProcessText({ broker }: Site, from: string): Promise<string> {
  let text = ''
  for await (const batch of broker.subscribe({ token: 'limited', from, onLag: 'skip' })) {
    text += JSON.stringify(batch)
    if (isMark(text)) break
  }
  return text
}

/** One way to learn of events. `query`: where a stream starts. */
interface Way {
  readonly name: string
  readonly route: string
  /** What all of it says. */
  read(site: Site, start: Start): Promise<string>
}

type Start = 'latest' | 'earliest' | 'resume' | 'last'

function query(start: Start, { before }: Site): string {
  if (start === 'resume') return `from=${encodeURIComponent(before)}`
  return start === 'last' ? 'last=100' : `from=${start}`
}

function clientStart(start: Start, { before }: Site): string {
  return start === 'resume' ? before : start === 'last' ? 'earliest' : start
}

const stream = (name: string, accept: string): Way => ({
  name,
  route: '/v1/events',
  read: async (site, start) =>
    bodyOf(await fetch(`${site.url}/v1/events?${query(start, site)}`, { headers: { ...headers, accept } })),
})

/** Ways to follow, from each start. */
const streams: readonly Way[] = [
  stream('SSE', 'text/event-stream'),
  stream('NDJSON', 'application/x-ndjson'),
  {
    name: 'Nomad',
    route: '/v1/event/stream',
    read: async (site, start) => {
      const index = { latest: site.broker.status.newestIndex, earliest: 0, resume: 1, last: 2 }[start]
      return bodyOf(await fetch(`${site.url}/v1/event/stream?namespace=*&index=${index}`, { headers }))
    },
  },
  { name: 'WebSocket', route: 'websocket', read: (site, start) => socketText(site, query(start, site)) },
  {
    name: 'a Request and a Response',
    route: '/v1/events',
    read: async (site, start) =>
      bodyOf(await site.fetch(new Request(`http://host/v1/events?${query(start, site)}`, { headers }))),
  },
  {
    name: 'a ticket',
    route: '/v1/tickets',
    read: async (site, start) => {
      const { json } = await ask(site, '/v1/tickets', { method: 'POST', headers })
      return bodyOf(await fetch(`${site.url}/v1/events?${query(start, site)}&ticket=${json.ticket}`))
    },
  },
  {
    name: 'a filter expression',
    route: '/v1/events',
    read: async (site, start) =>
      bodyOf(await fetch(`${site.url}/v1/events?${query(start, site)}&filter=true`, { headers })),
  },
  {
    name: 'the client',
    route: '/v1/events',
    read: (site, start) => clientText(site, clientStart(start, site)),
  },
  {
    name: 'the process itself',
    route: 'in process',
    read: (site, start) => inProcessText(site, clientStart(start, site)),
  },
]

function said({ status, headers, text }: Answer): string {
  return JSON.stringify([status, headers, text])
}

/** Ways that answer at once. */
const answers: readonly Way[] = [
  ...['GET', 'HEAD', 'OPTIONS'].flatMap((method) =>
    ['/v1/status', '/healthz', '/v1/tickets'].map((route) => ({
      name: `${method} ${route}`,
      route,
      read: async (site: Site) => said(await ask(site, route, { method, headers })),
    })),
  ),
  ...['from=x', 'topic=:', 'from=1&last=1', 'secret=x', 'from=e:1&exact=true', 'topic=nothing-allowed'].map((bad) => ({
    name: `the refusal of ${bad}`,
    route: '/v1/events',
    read: async (site: Site) => {
      const response = await fetch(`${site.url}/v1/events?${bad}`, { headers })
      // A topic that somebody may read is followed, from here on.
      if (response.status !== 200) return response.text()
      await response.body?.cancel()
      return ''
    },
  })),
  {
    name: 'the refusal of a publish',
    route: '/v1/events',
    read: async (site: Site) => {
      const contentType = { 'content-type': 'application/json' }
      const body = JSON.stringify({ topic: 'Job', type: 't' })
      return said(await ask(site, '/v1/events', { method: 'POST', headers: { ...headers, ...contentType }, body }))
    },
  },
]

function check(text: string, what: string): void {
  // What was asked for is repeated, as it came.
  assert.doesNotMatch(text, /secret-/, what)
}

for (const right of rights) {
  for (const way of streams) {
    test(`${right.name}: ${way.name} shows what may be read and nothing else, live, replayed, resumed, out of the log`, async (t) => {
      const live = await site(t, right)
      const reading = way.read(live, 'latest')
      // Who wants the same and may read all: nothing that is made for one must reach the other.
      const all = ['text/event-stream', 'application/x-ndjson'].map((accept) =>
        fetch(`${live.url}/v1/events`, { headers: { authorization: 'Bearer publisher', accept } }).then(bodyOf),
      )
      await until(() => live.broker.status.subscriptions === 3, 'all are there')
      await live.publish()
      const texts = [await reading]
      for (const text of await Promise.all(all)) assert.match(text, /secret-payload/)
      for (const start of ['earliest', 'resume', 'last'] as const) texts.push(await way.read(live, start))
      const old = await site(t, right, 1)
      await old.publish()
      texts.push(await way.read(old, 'earliest'))
      for (const [n, text] of texts.entries()) {
        check(text, `${way.name} ${n}`)
        assert.equal(text.match(/"mine"/g) !== null, true, `what may be read is there: ${text}`)
      }
    })
  }

  test(`${right.name}: a gap, a status, a refusal and a method tell nothing`, async (t) => {
    const lossy = await site(t, right, 2, 2)
    await lossy.publish()
    for (const way of streams) check(await way.read(lossy, 'earliest'), `${way.name} with a gap`)
    for (const way of answers) check(await way.read(lossy, 'latest'), way.name)
    const status = await ask(lossy, '/v1/status', { headers })
    assert.deepEqual(Object.keys(status.json), ['oldest', 'newest', 'epoch', 'cursor', 'floor'], 'no counts')
    assert.equal((await ask(lossy, '/v1/status')).status, 401)
    await assert.rejects(
      lossy.broker.append([{ events: [event('Job')] }], {
        permit: (await lossy.broker.access('limited', 'publish')).publish,
      }),
      withCode('FORBIDDEN'),
    )
  })
}

test('every way to read stands in this table', () => {
  const { routes } = new Faces(new LocalBroker({}), {})
  const covered = new Set([...streams, ...answers].map(({ route }) => route))
  for (const route of Object.keys(routes)) assert.ok(covered.has(route), `${route} is not in the matrix`)
  const packageFile = path.join(import.meta.dirname, '../../../package.json')
  const { exports } = JSON.parse(readFileSync(packageFile, 'utf8')) as { exports: object }
  const known = [
    '.',
    './node',
    './fetch',
    './websocket',
    './client',
    './tabs',
    './react',
    './shared',
    './log/sqlite',
    './log/jetstream',
    './log/postgres',
    './testing',
  ]
  assert.deepEqual(Object.keys(exports), known, 'a new entry may be a new way to read: add it to the matrix first')
})
