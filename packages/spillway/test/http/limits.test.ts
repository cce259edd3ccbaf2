import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { everything } from '../../src/core/rights.ts'
import { type Client, type Face, faces, follow, followRequest } from '../support/follower.ts'
import { ask, type Site, serve, until } from '../support/http.ts'

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
