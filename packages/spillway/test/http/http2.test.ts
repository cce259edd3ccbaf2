import assert from 'node:assert/strict'
import { type ClientHttp2Session, type ClientHttp2Stream, connect, constants, createServer } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { type Broker, type BrokerOptions, createBroker } from '../../src/core/broker.ts'
import { everything, type Rights } from '../../src/core/rights.ts'
import { type HandlerOptions, toNodeHandler } from '../../src/http/node.ts'
import { type Face, Follower, faces } from '../support/follower.ts'
import { until } from '../support/http.ts'
import { deferred } from '../support/waiting.ts'

interface Http2Site {
  readonly broker: Broker
  readonly session: ClientHttp2Session
}

async function serveHttp2(
  t: TestContext,
  handler: HandlerOptions = {},
  options: BrokerOptions = {},
): Promise<Http2Site> {
  const broker = createBroker({ capacity: 10_000, ...options })
  const server = createServer(toNodeHandler(broker, handler))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', () => resolve()))
  const session = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  session.on('error', () => {})
  t.after(async () => {
    session.destroy()
    server.close()
    await broker.close()
  })
  return { broker, session }
}

interface Followed {
  readonly stream: ClientHttp2Stream
  readonly follower: Follower
  status: number
  isEnded: boolean
}

function followHttp2(session: ClientHttp2Session, face: Face, query = ''): Followed {
  const stream = session.request({
    ':path': face === 'Nomad' ? `/v1/event/stream${query}` : `/v1/events${query}`,
    accept: face === 'SSE' ? 'text/event-stream' : 'application/x-ndjson',
  })
  const follower = new Follower(face, { bodyOnly: true })
  const followed: Followed = { stream, follower, status: 0, isEnded: false }
  stream.on('response', (headers) => {
    followed.status = Number(headers[':status'])
  })
  stream.on('data', (bytes: Buffer) => follower.push(bytes))
  stream.on('error', () => {})
  stream.on('end', () => {
    followed.isEnded = true
  })
  return followed
}

const publish = ({ broker }: Http2Site, payload: unknown) => broker.publish({ topic: 'T', type: 't', payload })

test('HTTP/2: 100 streams on one connection all get the same, and a last word', async (t) => {
  const site = await serveHttp2(t)
  const followed = Array.from({ length: 100 }, (_, n) => followHttp2(site.session, faces[n % 3] as Face))
  await until(() => followed.every(({ status }) => status === 200), 'all are open')
  assert.equal(site.broker.status.subscriptions, 100)
  for (let n = 1; n <= 500; n++) {
    await publish(site, `payload ${n}`)
    if (n % 10 === 0) await setImmediate()
  }
  await until(() => followed.every(({ follower }) => follower.index === 500), 'all have all')
  for (const { follower } of followed) {
    assert.deepEqual(
      follower.story,
      Array.from({ length: 500 }, (_, n) => ({ index: n + 1, payloads: [`payload ${n + 1}`] })),
    )
  }
  await site.broker.close()
  await until(() => followed.every(({ isEnded }) => isEnded), 'all have ended')
  for (const { follower } of followed) {
    assert.equal(follower.closed?.code, 'SHUTDOWN')
    if (follower.face !== 'Nomad') assert.match(follower.closed?.cursor ?? '', /:500$/)
  }
})

test('HTTP/2: a stream that is cancelled frees its subscription, and the others go on', async (t) => {
  const site = await serveHttp2(t)
  const followed = Array.from({ length: 10 }, () => followHttp2(site.session, 'NDJSON'))
  await until(() => followed.every(({ status }) => status === 200), 'all are open')
  for (const [left, { stream }] of [...followed.slice(0, 5).entries()]) {
    stream.close(constants.NGHTTP2_CANCEL)
    await until(() => site.broker.status.subscriptions === 9 - left, 'it is gone')
  }
  await publish(site, 'x')
  await until(() => followed.slice(5).every(({ follower }) => follower.index === 1), 'the others get it')
  assert.ok(followed.slice(0, 5).every(({ follower }) => follower.index === 0))
  site.session.destroy()
  await until(() => site.broker.status.subscriptions === 0, 'all go with their connection')
})

test('HTTP/2: silent streams get signs of life', async (t) => {
  const site = await serveHttp2(t, { heartbeat: 100 })
  const followed = faces.map((face) => followHttp2(site.session, face))
  await until(() => followed.every(({ follower }) => follower.signsOfLife >= 3), 'three each')
})

test('HTTP/2: a stream resumes exactly from its cursor', async (t) => {
  const site = await serveHttp2(t)
  for (let n = 1; n <= 20; n++) await publish(site, n)
  const first = followHttp2(site.session, 'NDJSON', '?from=earliest')
  await until(() => first.follower.index === 20, 'all came')
  first.stream.close(constants.NGHTTP2_CANCEL)
  for (let n = 21; n <= 30; n++) await publish(site, n)
  const second = followHttp2(site.session, 'NDJSON', `?from=${first.follower.cursor}`)
  await until(() => second.follower.index === 30, 'the rest came')
  assert.deepEqual(
    second.follower.batches.map(({ index }) => index),
    [21, 22, 23, 24, 25, 26, 27, 28, 29, 30],
  )
})

test('HTTP/2: a stream that is not read holds little, comes back exactly, and does not hold up the others', async (t) => {
  const site = await serveHttp2(t)
  const healthy = followHttp2(site.session, 'NDJSON')
  const lazy = followHttp2(site.session, 'NDJSON')
  await until(() => healthy.status === 200 && lazy.status === 200, 'both are open')
  lazy.stream.pause()
  for (let n = 1; n <= 2000; n++) {
    await publish(site, 'x'.repeat(1000))
    if (n % 10 === 0) await setImmediate()
  }
  await until(() => healthy.follower.index === 2000, 'the healthy one has all')
  assert.ok(lazy.follower.index < 1000, `the lazy one stands at ${lazy.follower.index}`)
  lazy.stream.resume()
  await until(() => lazy.follower.index === 2000, 'the lazy one comes to the end')
  assert.deepEqual(
    lazy.follower.batches.map(({ index }) => index),
    Array.from({ length: 2000 }, (_, n) => n + 1),
  )
})

test('HTTP/2: a stream that is not read is cut off after the stall time-out, though its connection is busy', async (t) => {
  const site = await serveHttp2(t, { stallTimeout: 500, heartbeat: 100 })
  const healthy = followHttp2(site.session, 'NDJSON')
  const lazy = followHttp2(site.session, 'NDJSON')
  await until(() => healthy.status === 200 && lazy.status === 200, 'both are open')
  lazy.stream.pause()
  let published = 0
  await until(
    async () => {
      published = await publish(site, 'x'.repeat(1000))
      return site.broker.status.subscriptions === 1
    },
    () => `the one that is not read is cut off; ${published} published`,
    5000,
  )
  await until(() => healthy.follower.index === published, 'the healthy one has all')
})

test('HTTP/2: a stream that is not read is cut off after the stall time-out on a connection that is otherwise idle', async (t) => {
  const site = await serveHttp2(t, { stallTimeout: 500 })
  const lazy = followHttp2(site.session, 'NDJSON')
  await until(() => lazy.status === 200, 'it is open')
  lazy.stream.pause()
  for (let n = 0; n < 500; n++) {
    await publish(site, 'x'.repeat(1000))
    if (n % 10 === 0) await setImmediate()
  }
  await until(() => site.broker.status.subscriptions === 0, 'it is cut off', 5000)
})

test('HTTP/2: a refused publish is answered, and what is published is one batch', async (t) => {
  const site = await serveHttp2(t)
  const ask = (body: string, type: string) =>
    new Promise<{ status: number; text: string }>((resolve, reject) => {
      const stream = site.session.request({ ':method': 'POST', ':path': '/v1/events', 'content-type': type })
      let text = ''
      let status = 0
      stream.on('response', (headers) => {
        status = Number(headers[':status'])
      })
      stream.setEncoding('utf8').on('data', (piece: string) => {
        text += piece
      })
      stream.on('end', () => resolve({ status, text })).on('error', reject)
      stream.end(body)
    })
  assert.equal((await ask('{}', 'text/plain')).status, 415)
  const { status, text } = await ask('{"events":[{"topic":"T","type":"t"}]}', 'application/json')
  assert.equal(status, 200)
  assert.equal(JSON.parse(text).index, 1)
})

test('HTTP/2: a peer that left while its access was looked up, before anything was opened, leaves nothing', async (t) => {
  const answers: ReturnType<typeof deferred<Rights>>[] = []
  const authorize = () => {
    const answer = deferred<Rights>()
    answers.push(answer)
    return answer.promise
  }
  const { broker, session } = await serveHttp2(t, { compileFilter: () => () => true }, { authorize })
  const { stream } = followHttp2(session, 'SSE', '?filter=true')
  await until(() => answers.length === 1, 'it has asked')
  stream.close(constants.NGHTTP2_CANCEL)
  await new Promise((resolve) => stream.on('close', resolve))
  // The server has seen it once it answers what came later.
  const later = followHttp2(session, 'SSE', '?bad')
  await until(() => later.status === 400, 'an answer')
  for (let n = 0; n < 3; n++) {
    for (const answer of answers) answer.resolve(everything)
    await setImmediate()
  }
  await until(() => broker.status.subscriptions === 0, 'nobody is left')
})
