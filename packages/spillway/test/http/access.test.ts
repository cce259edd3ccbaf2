import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SpillwayError } from '../../src/core/errors.ts'
import { everything, type Rights } from '../../src/core/rights.ts'
import { ask, post, publishIndexes, serve, until } from '../support/http.ts'
import { get, RawClient } from '../support/raw.ts'
import { followLines, followNdjson, followSse } from '../support/streams.ts'
import { deferred } from '../support/waiting.ts'

const slow = { 'x-nomad-token': 'slow' }

test('a slow authorize delays nobody else, and nothing is sent before it has answered', async (t) => {
  const answer = deferred<Rights>()
  const site = await serve(t, {
    brokerOptions: { authorize: ({ token }) => (token === 'slow' ? answer.promise : everything) },
  })
  const waiting = ['/v1/events?from=earliest', '/v1/event/stream'].map((path) =>
    RawClient.open(t, site.port, get(path, ['X-Nomad-Token: slow'])),
  )
  const clients = await Promise.all(waiting)
  await until(() => site.broker.status.subscriptions === 2, 'both ask for access')
  const { nextMessage } = await followSse(t, site)
  const lines = await followLines(t, site, '/v1/event/stream')
  await lines.nextLine()
  for (let index = 1; index <= 20; index++) {
    assert.equal((await post(site, { topic: 'T', type: 't' })).json.index, index)
    assert.equal((await nextMessage())?.lastEventId, `${site.broker.status.epoch}:${index}`)
    assert.match((await lines.nextLine()) as string, new RegExp(`"Index":${index}}$`))
  }
  assert.equal((await ask(site, '/healthz')).status, 200)
  for (const client of clients) assert.equal(client.bytes.length, 0)
  answer.resolve(everything)
  for (const client of clients) assert.match((await client.bodyWith('20')).statusLine, / 200 /)
})

test('a refusal is 403 with `Permission denied`: text on the path of Nomad, a problem on ours', async (t) => {
  const answer = deferred<Rights>()
  const site = await serve(t, { brokerOptions: { authorize: () => answer.promise } })
  const asking = ['/v1/event/stream', '/v1/events'].map((path) => ask(site, path, { headers: slow }))
  await until(() => site.broker.status.subscriptions === 2, 'both ask for access')
  answer.reject(new Error('role "x" of user "y" is disabled'))
  const [nomad, ours] = await Promise.all(asking)
  assert.deepEqual([nomad?.status, nomad?.text], [403, 'Permission denied'])
  assert.deepEqual([ours?.status, ours?.headers['content-type']], [403, 'application/problem+json'])
  const { code, detail, title } = ours?.json ?? {}
  assert.deepEqual([code, detail, title], ['FORBIDDEN', 'Permission denied', 'FORBIDDEN'])
  assert.equal(site.broker.status.subscriptions, 0)
})

test('a refusal may choose its status: UNAUTHORIZED is 401 with the scheme to use', async (t) => {
  const site = await serve(t, {
    brokerOptions: {
      authorize: () => {
        throw new SpillwayError('UNAUTHORIZED', 'Send a token.')
      },
    },
  })
  const ours = await ask(site, '/v1/events')
  assert.deepEqual([ours.status, ours.json.code, ours.headers['www-authenticate']], [401, 'UNAUTHORIZED', 'Bearer'])
  const nomad = await ask(site, '/v1/event/stream')
  assert.deepEqual([nomad.status, nomad.text], [401, 'Send a token.'])
})

test('an expression is compiled only for who may read, and a peer that leaves meanwhile is forgotten', async (t) => {
  const compiled: string[] = []
  let answer = deferred<Rights>()
  const site = await serve(t, {
    brokerOptions: { authorize: () => answer.promise },
    handler: {
      compileFilter: (expression) => {
        compiled.push(expression)
        return () => true
      },
    },
  })
  const refused = ask(site, '/v1/events?filter=true')
  await until(() => site.exchanges.length === 1, 'it has asked')
  answer.reject(new SpillwayError('UNAUTHORIZED', 'Send a token.'))
  assert.equal((await refused).status, 401)
  assert.deepEqual(compiled, [])
  answer = deferred()
  const client = await RawClient.open(t, site.port, get('/v1/events?filter=true'))
  await until(() => site.exchanges.length === 2, 'it has asked')
  client.socket.destroy()
  await until(() => site.exchanges[1]?.response.closed === true, 'it has gone')
  answer.resolve(everything)
  await until(() => compiled.length === 1, 'access was granted')
  await until(() => site.broker.status.subscriptions === 0, 'nobody is left')
  assert.equal((await ask(site, '/v1/status')).json.streams, 0)
})

test('what `authorize` threw is told to the operator, as `onError` says', async (t) => {
  const failure = new TypeError('tokens is undefined')
  const site = await serve(t, { brokerOptions: { authorize: () => Promise.reject(failure) } })
  assert.equal((await ask(site, '/v1/events')).status, 403)
  const causes = site.errors.map((error) => (error instanceof Error && error.cause) || error)
  assert.deepEqual(causes, [failure])
})

test('a client that goes away while access is checked frees its subscription within 1 s', async (t) => {
  const site = await serve(t, { brokerOptions: { authorize: () => new Promise(() => {}) } })
  for (const path of ['/v1/events', '/v1/event/stream']) {
    const client = await RawClient.open(t, site.port, get(path))
    await until(() => site.broker.status.subscriptions === 1, 'it asks for access')
    client.socket.destroy()
    await until(() => site.broker.status.subscriptions === 0, `no subscription after ${path}`, 1000)
  }
})

test('a client that went away while access was checked leaves nothing once the answer comes', async (t) => {
  const answer = deferred<Rights>()
  const site = await serve(t, { brokerOptions: { authorize: () => answer.promise } })
  const client = await RawClient.open(t, site.port, get('/v1/events'))
  await until(() => site.broker.status.subscriptions === 1, 'it asks for access')
  client.socket.destroy()
  await until(() => site.exchanges[0]?.request.socket.destroyed === true, 'the server sees it')
  answer.resolve(everything)
  await until(() => site.broker.status.subscriptions === 0, 'no subscription', 1000)
  assert.equal((await ask(site, '/v1/status')).json.streams, 0)
})

/** How a stream of each face ends. */
const closings = [
  { face: 'SSE', accept: 'text/event-stream', path: '/v1/events' },
  { face: 'NDJSON', accept: 'application/x-ndjson', path: '/v1/events' },
  { face: 'Nomad', accept: '*/*', path: '/v1/event/stream?bookmarks=true' },
] as const

function closedText(face: string, code: string, message: string, cursor: string, retry: number | null = null): string {
  const data = JSON.stringify({ closed: { code, message, retry, cursor } })
  if (face === 'SSE') return `event: closed\nid: ${cursor}\ndata: ${data}\n\n`
  return face === 'NDJSON' ? `${data}\n` : `${JSON.stringify({ Error: { Code: code, Message: message } })}\n`
}

for (const { face, accept, path } of closings) {
  const request = get(path, [`Accept: ${accept}`, 'X-Nomad-Token: a', 'Connection: close'])

  test(`${face}: revoking a token ends its open streams with the closed message, and only those`, async (t) => {
    const site = await serve(t)
    const client = await RawClient.open(t, site.port, request)
    const other = await followNdjson(t, site, '', { 'x-nomad-token': 'b' })
    await client.responseWith(({ body }) => body.length > 2, 'the opening')
    await publishIndexes(site.broker, 1, 3)
    await client.bodyWith(':3')
    const published = site.broker.publish({ topic: 'T', type: 'before' }, { index: 4 })
    site.broker.revoke('a')
    await site.broker.publish({ topic: 'T', type: 'secret' }, { index: 5 })
    await published
    const response = await client.toEnd()
    assert.ok(response.complete)
    assert.ok(!response.body.includes('secret'), response.body)
    assert.ok(/"index":4/i.test(response.body) || /:3"|"Index":3/.test(response.body))
    const at = `${site.broker.status.epoch}:${/"index":4/i.test(response.body) ? 4 : 3}`
    assert.ok(
      response.body.endsWith(closedText(face, 'REVOKED', 'The rights of this subscription were revoked.', at)),
      response.body,
    )
    let last = ''
    while (!last.includes('secret')) last = (await other.nextLine()) as string
  })

  test(`${face}: while access is checked again, what is published waits; a refusal ends the stream without it`, async (t) => {
    const answers = [deferred<Rights>(), deferred<Rights>()]
    let asked = 0
    const site = await serve(t, {
      brokerOptions: { authorize: () => (asked++ === 0 ? everything : (answers[asked - 2]?.promise ?? everything)) },
    })
    const client = await RawClient.open(t, site.port, request)
    await client.responseWith(({ body }) => body.length > 2, 'the opening')
    await publishIndexes(site.broker, 1, 3)
    await client.bodyWith(':3')
    site.broker.recheck()
    await publishIndexes(site.broker, 4, 6)
    await site.broker.flushed()
    assert.ok(!/"index":[4-6]/i.test(client.text))
    answers[0]?.resolve(everything)
    await client.bodyWith(':6')
    site.broker.recheck('a')
    await site.broker.publish({ topic: 'T', type: 'secret' }, { index: 7 })
    answers[1]?.reject(new Error('no longer'))
    const response = await client.toEnd()
    assert.ok(!response.body.includes('secret'), response.body)
    const at = `${site.broker.status.epoch}:6`
    assert.ok(response.body.endsWith(closedText(face, 'REVOKED', 'Access was withdrawn.', at)), response.body)
    assert.ok(!response.body.includes('no longer'))
  })

  test(`${face}: a stream ends within 1 s of its token's expiry, idle or not`, async (t) => {
    const expiresAt = Date.now() + 400
    const site = await serve(t, { brokerOptions: { authorize: () => ({ ...everything, expiresAt }) } })
    const idle = await RawClient.open(t, site.port, request)
    const busy = await RawClient.open(t, site.port, request)
    await busy.responseWith(({ body }) => body.length > 2, 'the opening')
    await until(async () => {
      await site.broker.publish({ topic: 'T', type: 'tick', payload: Date.now() })
      return busy.closed
    }, 'the busy stream ends')
    await idle.toEnd()
    assert.ok(Date.now() < expiresAt + 1500, `ended ${Date.now() - expiresAt} ms after the expiry`)
    for (const client of [idle, busy]) {
      const body = client.response?.body ?? ''
      const [, code] = /"code":"([A-Z]+)"/i.exec(body) ?? []
      assert.equal(code, 'EXPIRED')
      for (const [, at] of body.matchAll(/"Payload":(\d+)/gi))
        assert.ok(Number(at) <= expiresAt, 'nothing after the expiry')
    }
    assert.equal(site.broker.status.subscriptions, 0)
  })
}

test('a token that has expired opens nothing: the refusal is a status', async (t) => {
  const site = await serve(t, { brokerOptions: { authorize: () => ({ ...everything, expiresAt: Date.now() - 1 }) } })
  for (const { accept, path } of closings) {
    assert.equal((await ask(site, path, { headers: { accept } })).status, 401, path)
  }
})

test('an event published after a revocation never reaches the revoked reader, in 300 races on every face', async (t) => {
  const site = await serve(t, { brokerOptions: { capacity: 10_000 } })
  for (let round = 0; round < 100; round++) {
    const token = `t${round}`
    const clients = await Promise.all(
      closings.map(({ accept, path }) =>
        RawClient.open(t, site.port, get(path, [`Accept: ${accept}`, `X-Nomad-Token: ${token}`, 'Connection: close'])),
      ),
    )
    for (const client of clients) await client.responseWith(({ body }) => body.length > 2, 'the opening')
    const publishing = Array.from({ length: round % 7 }, () => site.broker.publish({ topic: 'T', type: 'seen' }))
    if (round % 3 === 0) await Promise.all(publishing)
    site.broker.revoke(token)
    const after = site.broker.publish({ topic: 'T', type: `secret-${round}` })
    await Promise.all([...publishing, after])
    for (const client of clients) {
      const { body } = await client.toEnd()
      assert.ok(!body.includes(`secret-${round}"`), body)
      assert.match(body, /REVOKED/)
    }
  }
  assert.equal(site.broker.status.subscriptions, 0)
})

test('what a filter of a reader over the network looks at is not kept', async (t) => {
  const seen: WeakRef<object>[] = []
  const site = await serve(t, {
    handler: {
      compileFilter: () => (event) => {
        seen.push(new WeakRef(event.payload as object))
        return false
      },
    },
  })
  for (let n = 0; n < 20; n++) await site.broker.publish({ topic: 'T', type: 't', payload: { n } })
  const client = await RawClient.open(t, site.port, get('/v1/events?from=earliest&filter=true'))
  await until(() => seen.length >= 20, 'all were looked at')
  client.socket.destroy()
  await until(() => site.broker.status.subscriptions === 0, 'it has gone')
  await until(() => {
    ;(globalThis as unknown as { gc(): void }).gc()
    return seen.every((ref) => ref.deref() === undefined)
  }, 'nothing of it is left')
})

test('what is kept is told to nobody who may not read', async (t) => {
  const site = await serve(t, {
    brokerOptions: {
      authorize: () => {
        throw new SpillwayError('UNAUTHORIZED', 'Send a token.')
      },
    },
  })
  await publishIndexes(site.broker, 1, 3)
  for (const query of ['exact=true&from=zz:0', 'last=2', 'from=2020-01-01T00:00:00Z', 'from=earliest']) {
    const { status, text } = await ask(site, `/v1/events?${query}`)
    assert.equal(status, 401, query)
    assert.doesNotMatch(text, /Kept/)
  }
})
