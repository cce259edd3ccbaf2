import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { SpillwayError } from '../../src/core/errors.ts'
import { memoryLog } from '../../src/core/memory-log.ts'
import { everything, type Rights } from '../../src/core/rights.ts'
import type { Denial } from '../../src/http/handler.ts'
import { PublishRate } from '../../src/http/limits.ts'
import { type Client, type Face, faces, follow, followRequest } from '../support/follower.ts'
import { ask, post, type Site, serve, until } from '../support/http.ts'
import { posting, RawClient } from '../support/raw.ts'
import { turn, withCode } from '../support/waiting.ts'

/** Opens a stream that stays. */
async function opened(t: TestContext, site: Site, face: Face, token?: string): Promise<Client> {
  const client = follow(site.port, face, followRequest(face, token === undefined ? {} : { token }))
  t.after(() => client.socket.destroy())
  await until(
    () => client.follower.status === 200,
    () => `opened: ${client.follower.status}`,
  )
  return client
}

const paths = { SSE: '/v1/events', NDJSON: '/v1/events', Nomad: '/v1/event/stream' }

for (const face of faces) {
  test(`${face}: beyond maxStreams a stream is refused with 503 and Retry-After, until one of them goes`, async (t) => {
    const site = await serve(t, { handler: { maxStreams: 3, retry: 4000 } })
    const clients = await Promise.all(faces.map((other) => opened(t, site, other)))
    for (let n = 0; n < 20; n++) {
      const { status, headers, text } = await ask(site, paths[face])
      assert.equal(status, 503)
      const wait = Number(headers['retry-after'])
      assert.ok(wait >= 4 && wait <= 8, `Retry-After: ${wait}`)
      if (face !== 'Nomad') assert.equal(JSON.parse(text).code, 'OVERLOADED')
      assert.match(text, /3 streams/)
    }
    assert.equal((await ask(site, '/healthz')).status, 200)
    assert.equal((await ask(site, '/v1/status')).json.streams, 3)
    for (const gone of clients) {
      gone.socket.destroy()
      await until(() => site.broker.status.subscriptions === 2, 'it is gone')
      await opened(t, site, face)
      assert.equal((await ask(site, paths[face])).status, 503)
    }
  })
}

test('beyond maxStreamsPerSubject one token is refused, others and readers without a token are not', async (t) => {
  const site = await serve(t, { handler: { maxStreamsPerSubject: 2 } })
  const first = await opened(t, site, 'SSE', 'a')
  await opened(t, site, 'Nomad', 'a')
  const asA = { headers: { authorization: 'Bearer a' } }
  const { status, headers, json } = await ask(site, '/v1/events', asA)
  assert.equal(status, 503)
  assert.match(String(headers['retry-after']), /^[12]$/)
  assert.match(json.detail as string, /2 streams of one subject/)
  assert.equal((await ask(site, '/v1/event/stream', { headers: { 'x-nomad-token': 'a' } })).status, 503)
  for (let n = 0; n < 2; n++) await opened(t, site, 'NDJSON', 'b')
  for (let n = 0; n < 5; n++) await opened(t, site, 'SSE')
  first.socket.destroy()
  await until(() => site.broker.status.subscriptions === 8, 'it is gone')
  await opened(t, site, 'SSE', 'a')
  assert.equal((await ask(site, '/v1/events', asA)).status, 503)
})

test('what may wait in a connection, and how far rounds are apart, are numbers in their bounds', async (t) => {
  for (const highWaterMark of [0, 2 ** 30 + 1, 1.5, Number.NaN, '16384'] as number[]) {
    await assert.rejects(serve(t, { handler: { highWaterMark } }), {
      code: 'CONFIG',
      message: /^highWaterMark must be/,
    })
  }
  for (const roundInterval of [-1, 10_001, 1.5, Number.NaN, '10'] as number[]) {
    await assert.rejects(serve(t, { handler: { roundInterval } }), {
      code: 'CONFIG',
      message: /^roundInterval must be/,
    })
  }
  for (const handler of [{ highWaterMark: 1, roundInterval: 10_000 }, { highWaterMark: 2 ** 30 }]) {
    await serve(t, { handler })
  }
})

test('who is refused, revoked or gone before access was granted takes no place', async (t) => {
  const waiting: (() => void)[] = []
  const site = await serve(t, {
    brokerOptions: {
      authorize: ({ token }) => {
        if (token === 'bad') throw new Error('refused')
        return token === 'wait' ? new Promise((resolve) => waiting.push(() => resolve(everything))) : everything
      },
    },
    handler: { maxStreams: 2, maxStreamsPerSubject: 2 },
  })
  for (let n = 0; n < 10; n++) {
    assert.equal((await ask(site, '/v1/events', { headers: { authorization: 'Bearer bad' } })).status, 403)
  }
  for (let n = 0; n < 5; n++) {
    const pair = ['SSE', 'NDJSON'].map((face) =>
      follow(site.port, face as Face, followRequest(face as Face, { token: 'wait' })),
    )
    await until(() => site.broker.status.subscriptions === 2, 'both wait')
    assert.equal((await ask(site, '/v1/events')).status, 503, 'those who wait are counted')
    for (const { socket } of pair) socket.destroy()
    await until(() => site.broker.status.subscriptions === 0, 'both are gone')
  }
  for (const grant of waiting) grant()
  for (let n = 0; n < 5; n++) {
    const revoked = await opened(t, site, 'SSE', 'short')
    site.broker.revoke('short')
    await until(() => revoked.follower.isComplete, 'it was told')
  }
  await opened(t, site, 'SSE')
  await opened(t, site, 'SSE')
  assert.equal((await ask(site, '/v1/events')).status, 503)
})

test('a bad request beyond the limit, or one that opens nothing, takes no place either', async (t) => {
  const site = await serve(t, { handler: { maxStreams: 1 } })
  for (let n = 0; n < 5; n++) assert.equal((await ask(site, '/v1/events?from=nonsense')).status, 400)
  await opened(t, site, 'SSE')
  assert.equal((await ask(site, '/v1/events')).status, 503)
})

test('beyond maxStreamsPerAddress an address is refused, over all faces', async (t) => {
  const site = await serve(t, { handler: { maxStreamsPerAddress: 2 } })
  const first = await opened(t, site, 'SSE')
  await opened(t, site, 'Nomad')
  const { status, json } = await ask(site, '/v1/events')
  assert.equal(status, 503)
  assert.match(json.detail as string, /2 streams of one address/)
  first.socket.destroy()
  await until(() => site.broker.status.subscriptions === 1, 'it is gone')
  await opened(t, site, 'NDJSON')
})

test('behind a proxy the last address that it forwards counts, and only there', async (t) => {
  for (const trustProxy of [true, false]) {
    const site = await serve(t, { handler: { maxStreamsPerAddress: 1, trustProxy } })
    const from = (address: string) => fetch(`${site.url}/v1/events`, { headers: { 'x-forwarded-for': address } })
    const statuses = []
    for (const address of ['1.1.1.1', '9.9.9.9, 2.2.2.2', '1.1.1.1, 2.2.2.2']) {
      const { status, body } = await from(address)
      statuses.push(status)
      t.after(() => body?.cancel())
    }
    assert.deepEqual(statuses, trustProxy ? [200, 200, 503] : [200, 503, 503])
  }
})

test('streams of all mounts of a broker are counted together', async (t) => {
  const site = await serve(t, { handler: { maxStreams: 2 } })
  const other = await serve(t, { broker: site.broker, handler: { maxStreams: 2 } })
  await opened(t, site, 'SSE')
  await opened(t, other, 'SSE')
  for (const each of [site, other]) assert.equal((await ask(each, '/v1/events')).status, 503)
})

test('a subject that publishes too fast is refused with 429 and Retry-After, and others are not', async (t) => {
  const site = await serve(t, {
    brokerOptions: { authorize: () => everything },
    handler: { maxPublishRate: 5, retry: 1000 },
  })
  const publish = (token: string, count: number) =>
    post(
      site,
      Array.from({ length: count }, () => ({ topic: 'T', type: 't' })),
      { authorization: `Bearer ${token}` },
    )
  assert.equal((await publish('a', 5)).status, 200)
  const refused = await publish('a', 5)
  assert.deepEqual([refused.status, refused.json.code, refused.json.retryable], [429, 'RATE_LIMITED', true])
  assert.match(String(refused.headers['retry-after']), /^[12]$/)
  assert.match(refused.json.detail as string, /5 events a second may be published, and these are 5\. None was stored/)
  assert.equal((await publish('b', 5)).status, 200)
  assert.equal(site.broker.status.newestIndex, 2)
})

test('where nobody looks at tokens, they do not make publishers', async (t) => {
  const site = await serve(t, { handler: { maxPublishRate: 2 } })
  const statuses = []
  for (let n = 0; n < 4; n++) {
    statuses.push((await post(site, { topic: 'T', type: 't' }, { authorization: `Bearer invented-${n}` })).status)
  }
  assert.deepEqual(statuses, [200, 200, 429, 429])
})

test('a stream that is refused for want of room is no failure of the server', async (t) => {
  const site = await serve(t, { handler: { maxStreams: 1 } })
  await opened(t, site, 'SSE')
  assert.equal((await ask(site, '/v1/events')).status, 503)
  assert.deepEqual(site.errors, [])
})

test("ids of publishes are their subject's own", async (t) => {
  const site = await serve(t, { brokerOptions: { authorize: ({ token }) => ({ ...everything, subject: token }) } })
  const publish = (token: string, type: string) =>
    post(site, { topic: 'T', type }, { authorization: `Bearer ${token}`, 'idempotency-key': 'order-17' })
  assert.equal((await publish('a', 'x')).json.index, 1)
  assert.equal((await publish('b', 'y')).json.index, 2)
  assert.equal((await publish('a', 'x')).json.duplicate, true)
  const { status, json } = await publish('a', 'z')
  assert.deepEqual([status, json.detail], [409, 'The key "order-17" was used for other events. Nothing was stored.'])
})

test('a bucket fills with time, holds a second, and pays for a batch that is larger', () => {
  const rate = new PublishRate(10)
  rate.take('a', 10, 0)
  assert.throws(() => rate.take('a', 1, 50), withCode('RATE_LIMITED'))
  rate.take('a', 1, 100)
  rate.take('a', 10, 5000)
  assert.throws(() => rate.take('a', 1, 5001), withCode('RATE_LIMITED'))
  rate.take('b', 25, 5001)
  assert.throws(() => rate.take('b', 1, 6500), withCode('RATE_LIMITED'), 'it is paid for')
  rate.take('b', 1, 6701)
})

test('batches and payloads have their limits', async (t) => {
  const site = await serve(t, { handler: { maxBatch: 2, maxPayload: 10 } })
  const event = (payload?: string) => ({ topic: 'T', type: 't', payload })
  for (const [body, message] of [
    [[event(), event(), event()], /has 3 events, at most 2 \(maxBatch\)/],
    [event('123456789'), /A payload has 11 characters, at most 10 \(maxPayload\)/],
  ] as const) {
    const { status, json } = await post(site, body)
    assert.deepEqual([status, json.code], [413, 'TOO_LARGE'])
    assert.match(json.detail as string, message)
  }
  assert.equal((await post(site, [event('12345678'), event()])).status, 200)
  assert.equal(site.broker.status.newestIndex, 1)
})

test('the operator is told who was denied, with what and from where, and whose stream was ended', async (t) => {
  const denials: Denial[] = []
  const rights: Record<string, Rights> = {
    reader: { read: 'all', publish: [], subject: 'ann' },
    publisher: { read: [], publish: [{ topics: { T: ['*'] } }], subject: 'bob' },
  }
  const site = await serve(t, {
    brokerOptions: {
      authorize: ({ token }) => {
        const found = rights[token]
        if (!found) throw new SpillwayError('UNAUTHORIZED', 'This token is not valid.')
        return found
      },
    },
    handler: { onDenied: (denial) => denials.push(denial) },
  })
  const as = (token: string) => ({ authorization: `Bearer ${token}` })
  assert.equal((await ask(site, '/v1/events', { headers: as('canary') })).status, 401)
  assert.equal((await ask(site, '/v1/event/stream', { headers: as('publisher') })).status, 403)
  assert.equal((await post(site, { topic: 'T', type: 't' }, as('reader'))).status, 403)
  assert.equal((await post(site, { topic: 'S', type: 't' }, as('publisher'))).status, 403)
  assert.equal((await post(site, { topic: 'T', type: 't' }, as('publisher'))).status, 200)
  assert.equal((await ask(site, '/v1/tickets', { method: 'POST', headers: as('canary') })).status, 401)
  assert.equal((await ask(site, '/v1/status', { headers: as('canary') })).status, 401)
  const stream = await opened(t, site, 'NDJSON', 'reader')
  site.broker.revoke('ann')
  await until(() => stream.follower.isComplete, 'it is ended')
  const told = denials.map(({ code, action, subject, address }) => [code, action, subject, address].join())
  assert.deepEqual(told, [
    'UNAUTHORIZED,read,,127.0.0.1',
    'FORBIDDEN,read,,127.0.0.1',
    'FORBIDDEN,publish,ann,127.0.0.1',
    'FORBIDDEN,publish,bob,127.0.0.1',
    'UNAUTHORIZED,ticket,,127.0.0.1',
    'UNAUTHORIZED,status,,127.0.0.1',
    'REVOKED,read,ann,127.0.0.1',
  ])
  assert.doesNotMatch(JSON.stringify(denials), /canary/)
})

test('who loses the right to publish while the body is on its way publishes nothing', async (t) => {
  let mayPublish = true
  const site = await serve(t, {
    brokerOptions: { authorize: () => ({ read: 'all', publish: mayPublish ? 'all' : [], subject: 'ann' }) },
  })
  const body = '{"topic":"T","type":"t"}'
  const client = await RawClient.open(
    t,
    site.port,
    posting(
      ['Content-Type: application/json', `Content-Length: ${body.length}`, 'Connection: close'],
      body.slice(0, 9),
    ),
  )
  await until(() => site.exchanges.length === 1, 'it has begun')
  await turn()
  mayPublish = false
  site.broker.recheck('ann')
  client.send(body.slice(9))
  assert.match((await client.toEnd()).statusLine, / 403 /)
  assert.equal(site.broker.status.newestIndex, 0)
})

test('a log is not told the token of who publishes', async (t) => {
  const keys: (string | undefined)[] = []
  const log = memoryLog()
  const append = log.append.bind(log)
  log.append = (batches, options) => {
    keys.push(options?.key)
    return append(batches, options)
  }
  const site = await serve(t, { brokerOptions: { log, authorize: () => everything } })
  for (const headers of [{}, { 'idempotency-key': 'k' }]) {
    await post(site, { topic: 'T', type: 't' }, { authorization: 'Bearer canary', ...headers })
  }
  assert.equal(keys[0], undefined)
  assert.match(keys[1] ?? '', /^k\0[0-9a-f]{32}$/)
})

test('an index is chosen by who may publish everything', async (t) => {
  const publish: Record<string, Rights['publish']> = { some: [{ topics: { T: ['*'] } }], all: 'all' }
  const site = await serve(t, {
    brokerOptions: { authorize: ({ token }) => ({ read: 'all', publish: publish[token] ?? [] }) },
  })
  const ask = (token: string) =>
    post(site, { index: 2 ** 53 - 1, events: [{ topic: 'T', type: 't' }] }, { authorization: `Bearer ${token}` })
  assert.deepEqual([(await ask('some')).status, site.broker.status.newestIndex], [403, 0])
  assert.equal((await ask('all')).status, 200)
})

test('strangers cannot take all places while it is looked up who they are', async (t) => {
  const site = await serve(t, {
    brokerOptions: { authorize: ({ token }) => (token === 'slow' ? new Promise(() => {}) : everything) },
    handler: { maxStreams: 64 },
  })
  const clients = Array.from({ length: 40 }, () => follow(site.port, 'SSE', followRequest('SSE', { token: 'slow' })))
  t.after(() => {
    for (const { socket } of clients) socket.destroy()
  })
  await until(() => clients.filter(({ follower }) => follower.status === 503).length === 24, 'the others are refused')
  for (const { socket } of clients) socket.destroy()
  await until(() => site.broker.status.subscriptions === 0, 'they are gone')
  for (let n = 0; n < 20; n++) await opened(t, site, 'SSE')
})
