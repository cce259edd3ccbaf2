import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { type ClientOptions, WebSocket, WebSocketServer } from 'ws'
import { type Broker, type BrokerOptions, createBroker } from '../../src/core/broker.ts'
import { SpillwayError } from '../../src/core/errors.ts'
import { everything, type Rights } from '../../src/core/rights.ts'
import { attachWebSocket, type WebSocketOptions } from '../../src/http/websocket.ts'
import { publishIndexes, until } from '../support/http.ts'
import { withCode } from '../support/waiting.ts'

interface Site {
  readonly broker: Broker
  readonly url: string
  readonly server: WebSocketServer
}

async function serve(t: TestContext, options: WebSocketOptions = {}, brokerOptions: BrokerOptions = {}): Promise<Site> {
  const broker = createBroker({ capacity: 1000, ...brokerOptions })
  const http = createServer()
  const server = new WebSocketServer({ server: http, path: '/v1/events' })
  attachWebSocket(broker, server, { onError: () => {}, ...options })
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  t.after(async () => {
    for (const socket of server.clients) socket.terminate()
    http.close()
    await broker.close()
  })
  return { broker, server, url: `ws://127.0.0.1:${(http.address() as AddressInfo).port}/v1/events` }
}

type Line = Record<string, unknown> & { id?: number; index?: number; closed?: { code: string; message: string } }

/** A connection that asks with `orders` once it stands. */
class Peer {
  readonly socket: WebSocket
  readonly closed: Promise<{ code: number; reason: string }>
  readonly #lines: Line[] = []
  #wake: (() => void) | undefined

  constructor(t: TestContext, url: string, orders: readonly unknown[], options: ClientOptions = {}) {
    this.socket = new WebSocket(url, options)
    t.after(() => this.socket.terminate())
    this.socket.on('error', () => {})
    this.socket.on('open', () => {
      for (const order of orders) this.ask(order)
    })
    this.socket.on('message', (data) => {
      for (const line of String(data).trimEnd().split('\n')) this.#lines.push(JSON.parse(line))
      this.#wake?.()
    })
    this.closed = new Promise((resolve) =>
      this.socket.on('close', (code, reason) => resolve({ code, reason: String(reason) })),
    )
  }

  ask(order: unknown): void {
    this.socket.send(typeof order === 'string' || order instanceof Uint8Array ? order : JSON.stringify(order))
  }

  async next(): Promise<Line> {
    for (;;) {
      const line = this.#lines.shift()
      if (line) return line
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }
}

test('a subscription without an id gets the lines of NDJSON', async (t) => {
  const { broker, url } = await serve(t)
  await publishIndexes(broker, 1, 2)
  const peer = new Peer(t, url, [{ subscribe: 'from=earliest' }])
  assert.deepEqual(await peer.next(), { open: { cursor: `${broker.status.epoch}:0`, oldest: 1, newest: 2 } })
  assert.equal((await peer.next()).index, 1)
  assert.equal((await peer.next()).index, 2)
})

test('several subscriptions share a connection, each with its id, and are given up one by one', async (t) => {
  const { broker, url } = await serve(t)
  const peer = new Peer(t, url, [
    { subscribe: 'topic=A', id: 1 },
    { subscribe: 'topic=B', id: 2 },
  ])
  assert.deepEqual([(await peer.next()).id, (await peer.next()).id], [1, 2])
  await broker.publish({ topic: 'A', type: 't' })
  await broker.publish({ topic: 'B', type: 't' })
  const lines = [await peer.next(), await peer.next()]
  assert.deepEqual(lines.map(({ id, index }) => [id, index]).sort(), [
    [1, 1],
    [2, 2],
  ])
  peer.ask({ unsubscribe: 1 })
  await until(() => broker.status.subscriptions === 1, 'one is left')
  await broker.publish([
    { topic: 'A', type: 't' },
    { topic: 'B', type: 't' },
  ])
  const { id, index } = await peer.next()
  assert.deepEqual([id, index], [2, 3])
  peer.ask({ subscribe: 'topic=A&from=earliest', id: 1 })
  assert.ok('open' in (await peer.next()))
  assert.deepEqual((await peer.next()).index, 1)
})

test('a refusal says why, and ends the connection only where it has no id', async (t) => {
  const { broker, url } = await serve(t)
  const peer = new Peer(t, url, [{ subscribe: 'form=latest', id: 3 }])
  const { id, closed } = await peer.next()
  assert.deepEqual([id, closed?.code], [3, 'INVALID'])
  peer.ask({ subscribe: '', id: 3 })
  assert.ok('open' in (await peer.next()))
  const other = new Peer(t, url, [{ subscribe: 'form=latest' }])
  assert.match((await other.next()).closed?.message as string, /unknown parameter "form"/)
  assert.deepEqual(await other.closed, { code: 4500, reason: 'INVALID' })
  await until(() => broker.status.subscriptions === 1, 'the first is left')
})

test('a token is that of the message, or of the request', async (t) => {
  const authorize = ({ token }: { token: string }) => {
    if (token !== 'right') throw new SpillwayError('UNAUTHORIZED', 'This token is not valid.')
    return everything
  }
  const { url } = await serve(t, {}, { authorize })
  assert.ok('open' in (await new Peer(t, url, [{ subscribe: '', token: 'right' }]).next()))
  const headers = { authorization: 'Bearer right' }
  assert.ok('open' in (await new Peer(t, url, [{ subscribe: '' }], { headers }).next()))
  const refused = new Peer(t, url, [{ subscribe: '', token: 'wrong' }], { headers })
  assert.equal((await refused.next()).closed?.code, 'UNAUTHORIZED')
  assert.equal((await refused.closed).code, 4510)
  const nomad = { 'x-nomad-token': 'wrong' }
  const asked = new Peer(t, url, [{ subscribe: '', token: 'right' }], { headers: nomad })
  assert.ok('open' in (await asked.next()), 'that of the message goes first')
})

test('a connection without subscriptions is closed, from the beginning or later', async (t) => {
  const { url, broker } = await serve(t, { idleTimeout: 50 })
  const silent = new Peer(t, url, [])
  assert.match((await silent.next()).closed?.message ?? '', /No subscription was asked for within 50 ms/)
  assert.equal((await silent.closed).reason, 'INVALID')
  const done = new Peer(t, url, [{ subscribe: '', id: 1 }])
  assert.ok('open' in (await done.next()))
  done.ask({ unsubscribe: 1 })
  assert.equal((await done.closed).reason, 'INVALID')
  assert.equal(broker.status.subscriptions, 0)
})

test('the end of the broker ends also connections that have no subscription', async (t) => {
  const { broker, server, url } = await serve(t)
  const peer = new Peer(t, url, [])
  await until(() => server.clients.size === 1, 'it is connected')
  await broker.close()
  assert.equal((await peer.next()).closed?.code, 'SHUTDOWN')
  assert.deepEqual(await peer.closed, { code: 4001, reason: 'SHUTDOWN' })
})

test('the end of the broker is the last word, with its close code', async (t) => {
  const { broker, url } = await serve(t)
  const peer = new Peer(t, url, [{ subscribe: '' }])
  await peer.next()
  await broker.close()
  assert.equal((await peer.next()).closed?.code, 'SHUTDOWN')
  assert.deepEqual(await peer.closed, { code: 4001, reason: 'SHUTDOWN' })
})

test('an idle subscription ends when its rights expire, and gets nothing after', async (t) => {
  const expiresAt = Date.now() + 300
  const { broker, url } = await serve(t, {}, { authorize: () => ({ ...everything, expiresAt }) })
  const peer = new Peer(t, url, [{ subscribe: '' }])
  assert.ok('open' in (await peer.next()))
  const last = await peer.next()
  await broker.publish({ topic: 'T', type: 't' })
  assert.equal(last.closed?.code, 'EXPIRED')
  assert.ok(Date.now() < expiresAt + 1000, 'within a second')
  assert.deepEqual(await peer.closed, { code: 4513, reason: 'EXPIRED' })
})

test('a refusal does not repeat a token that stands in the wrong place', async (t) => {
  const { url } = await serve(t)
  for (const order of [
    'canary',
    '{"token":"canary"}',
    '{"subscribe":"","token":["canary"]}',
    '{"unsubscribe":"canary"}',
  ]) {
    const peer = new Peer(t, url, [order])
    const { closed } = await peer.next()
    assert.equal(closed?.code, 'INVALID')
    assert.doesNotMatch(closed?.message ?? '', /canary/)
  }
})

test('who is refused again and again is sent away', async (t) => {
  const authorize = () => {
    throw new SpillwayError('UNAUTHORIZED', 'This token is not valid.')
  }
  const { url } = await serve(t, {}, { authorize })
  const peer = new Peer(
    t,
    url,
    Array.from({ length: 20 }, (_, n) => ({ subscribe: '', id: n + 1 })),
  )
  assert.deepEqual(await peer.closed, { code: 4510, reason: 'UNAUTHORIZED' })
})

test('a page of another origin is refused unless it is named', async (t) => {
  const { url } = await serve(t, { cors: ['https://app.example'] })
  const host = new URL(url).host
  for (const origin of ['https://app.example', `http://${host}`]) {
    assert.ok('open' in (await new Peer(t, url, [{ subscribe: '' }], { origin }).next()), origin)
  }
  for (const origin of ['https://evil.example', 'null', `http://${host}.evil.example`]) {
    const peer = new Peer(t, url, [{ subscribe: '' }], { origin })
    assert.equal((await peer.next()).closed?.code, 'FORBIDDEN')
    assert.equal((await peer.closed).code, 4511)
  }
})

test('a cookie counts only from pages of the server itself, or of origins that are named', async (t) => {
  const authorize = ({ token }: { token: string }) => {
    if (token !== 'right') throw new SpillwayError('UNAUTHORIZED', 'This token is not valid.')
    return everything
  }
  const headers = { cookie: 'sid=right' }
  const any = await serve(t, { cors: '*', cookie: 'sid' }, { authorize })
  const foreign = new Peer(t, any.url, [{ subscribe: '' }], { origin: 'https://evil.example', headers })
  assert.equal((await foreign.next()).closed?.code, 'UNAUTHORIZED')
  const own = new Peer(t, any.url, [{ subscribe: '' }], { origin: `http://${new URL(any.url).host}`, headers })
  assert.ok('open' in (await own.next()))
  const named = await serve(t, { cors: ['https://app.example'], cookie: 'sid' }, { authorize })
  const peer = new Peer(t, named.url, [{ subscribe: '' }], { origin: 'https://app.example', headers })
  assert.ok('open' in (await peer.next()))
})

test('a peer that asks for what is refused, and reads no answer, is served no more', async (t) => {
  const { url, server } = await serve(t)
  const peer = new Peer(t, url, [])
  await until(() => server.clients.size === 1 && peer.socket.readyState === WebSocket.OPEN, 'it stands')
  const [socket] = server.clients
  peer.socket.pause()
  const query = `${'x'.repeat(200)}=1`
  await until(async () => {
    for (let id = 1; id <= 64; id++) peer.ask({ subscribe: query, id })
    await new Promise((resolve) => setImmediate(resolve))
    return socket?.readyState !== WebSocket.OPEN
  }, 'it is served no more')
  assert.ok((socket?.bufferedAmount as number) < 5 * 2 ** 20)
})

for (const [what, order, message] of [
  ['is no JSON', '{', /must be a JSON object/],
  ['is bytes', Buffer.from('{}'), /must be text/],
  ['asks for nothing', {}, /must have subscribe, a query, or unsubscribe/],
  ['has an id that is none', { subscribe: '', id: 65 }, /id must be an integer from 1 to 64, got 65/],
  ['has a token that is none', { subscribe: '', token: 7 }, /token must be a string/],
  ['is too long', { subscribe: `topic=${'x'.repeat(20_000)}` }, /may have 16384 characters/],
] as const) {
  test(`a message that ${what} is refused`, async (t) => {
    const { url } = await serve(t)
    const peer = new Peer(t, url, [order])
    assert.match((await peer.next()).closed?.message as string, message)
    assert.ok((await peer.closed).code >= 4500)
  })
}

test('an id that was given up while its access was checked is free, and stays who takes it', async (t) => {
  const answers: (() => void)[] = []
  const authorize = () => new Promise<Rights>((resolve) => answers.push(() => resolve(everything)))
  const { broker, url } = await serve(t, {}, { authorize })
  const peer = new Peer(t, url, [{ subscribe: '', id: 1 }, { unsubscribe: 1 }, { subscribe: '', id: 1 }])
  await until(() => answers.length === 2, 'both have asked')
  for (const answer of answers) answer()
  assert.ok('open' in (await peer.next()))
  await broker.publish({ topic: 'T', type: 't' })
  assert.equal((await peer.next()).index, 1)
  assert.equal(broker.status.subscriptions, 1)
})

test('an id is used once at a time', async (t) => {
  const { url } = await serve(t)
  const peer = new Peer(t, url, [
    { subscribe: '', id: 1 },
    { subscribe: '', id: 1 },
  ])
  for (;;) {
    const { closed } = await peer.next()
    if (!closed) continue
    assert.match(closed.message, /There is a subscription with id 1 already/)
    return
  }
})

test('a peer that reads nothing holds a bounded number of bytes, and is told its loss when it reads', async (t) => {
  const { broker, url, server } = await serve(t, { stallTimeout: 60_000 }, { capacity: 8 })
  const peer = new Peer(t, url, [{ subscribe: 'from=earliest' }])
  await peer.next()
  peer.socket.pause()
  const [socket] = server.clients
  const payload = 'x'.repeat(100_000)
  let most = 0
  for (let n = 1; n <= 600; n++) {
    await broker.publish({ topic: 'T', type: 't', payload })
    await new Promise((resolve) => setImmediate(resolve))
    most = Math.max(most, socket?.bufferedAmount as number)
  }
  assert.ok(most > 0, 'it did not keep up')
  assert.ok(most < 5 * 16_384 + 2 * 100_200, `${most} bytes waited`)
  peer.socket.resume()
  let at = 0
  let gaps = 0
  while (at < 600) {
    const { index, gap } = (await peer.next()) as { index?: number; gap?: { after: number; before: number } }
    if (gap) {
      gaps++
      assert.equal(gap.after, at)
      at = gap.before - 1
    } else if (index !== undefined) {
      assert.equal(index, at + 1)
      at = index
    }
  }
  assert.ok(gaps > 0)
})

test('a peer that stalls for too long is cut off, and forgotten', async (t) => {
  const { broker, url } = await serve(t, { stallTimeout: 300, heartbeat: 100 }, { capacity: 8 })
  const peer = new Peer(t, url, [{ subscribe: 'from=earliest' }])
  await peer.next()
  peer.socket.pause()
  // Until the kernel's buffers are full, too, it takes all.
  await until(async () => {
    await broker.publish({ topic: 'T', type: 't', payload: 'x'.repeat(200_000) })
    return broker.status.subscriptions === 0
  }, 'it is forgotten')
})

test('options that make no sense are refused', () => {
  const server = new WebSocketServer({ noServer: true })
  const broker = createBroker()
  assert.throws(() => attachWebSocket(broker, server, { maxSubscriptions: 0 }), withCode('CONFIG', /maxSubscriptions/))
  assert.throws(() => attachWebSocket(broker, server, { heartbeat: 1 }), withCode('CONFIG', /heartbeat/))
  assert.throws(() => attachWebSocket({} as never, server), withCode('CONFIG', /broker must come from createBroker/))
})
