import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { SpillwayError } from '../../src/core/errors.ts'
import { JsonText } from '../../src/core/event.ts'
import { everything } from '../../src/core/rights.ts'
import { ask, publishIndexes, type Site, serve, until } from '../support/http.ts'
import { get, RawClient } from '../support/raw.ts'
import { followLines } from '../support/streams.ts'

// The numbers are those of the rules for Nomad's endpoint.

const path = '/v1/event/stream'
const registered = {
  topic: 'Job',
  type: 'JobRegistered',
  key: 'web',
  namespace: 'default',
  payload: { Job: { ID: 'web' } },
}
const registeredLine =
  '{"Events":[{"FilterKeys":null,"Index":7,"Key":"web","Namespace":"default","Payload":{"Job":{"ID":"web"}},"Topic":"Job","Type":"JobRegistered"}],"Index":7}\n'

test('26: a stream answers 200 with the headers of Nomad and `{}` at once', async (t) => {
  const { port } = await serve(t)
  const client = await RawClient.open(t, port, get(path))
  const response = await client.bodyWith('{}\n')
  assert.equal(response.statusLine, 'HTTP/1.1 200 OK')
  assert.equal(response.header('content-type'), 'application/json')
  assert.equal(response.header('cache-control'), 'no-cache')
  assert.equal(response.header('transfer-encoding'), 'chunked')
  assert.equal(response.header('content-length'), undefined)
  assert.equal(response.rawBody.toString('latin1'), '3\r\n{}\n\r\n')
})

test('26: the first line comes even if the history is full of what the reader does not want', async (t) => {
  const { broker, port } = await serve(t, { brokerOptions: { capacity: 100_000 } })
  await broker.publishAll(
    Array.from({ length: 20_000 }, () => ({ events: [{ topic: 'Tick', type: 'Ticked', key: 'k1' }] })),
  )
  const client = await RawClient.open(t, port, get(`${path}?topic=Tick:none`))
  const response = await client.bodyWith('{}\n')
  assert.equal(response.body, '{}\n')
})

test('26: each message is one line of JSON, never an empty one', async (t) => {
  const site = await serve(t, { brokerOptions: { capacity: 5 }, handler: { heartbeat: 100 } })
  await publishIndexes(site.broker, 1, 20)
  const { nextLine } = await followLines(t, site, `${path}?index=2`)
  let heartbeats = 0
  let last = 0
  while (heartbeats < 3) {
    const line = await nextLine()
    assert.ok(line !== undefined && line !== '', 'a line')
    const message = JSON.parse(line) as { Index?: number }
    if (message.Index) last = message.Index
    else if (last === 20) heartbeats++
  }
})

test('27: a heartbeat is exactly `{}` and a line break', async (t) => {
  const { port } = await serve(t, { handler: { heartbeat: 100 } })
  const client = await RawClient.open(t, port, get(path))
  const response = await client.bodyWith('{}\n{}\n{}\n')
  assert.match(response.rawBody.toString('latin1'), /^(3\r\n\{\}\n\r\n)+$/)
})

test('27: a heartbeat longer than 30 s or shorter than 100 ms is refused', async (t) => {
  for (const heartbeat of [30_001, 99, 0, -1, 1.5, Number.NaN]) {
    await assert.rejects(serve(t, { handler: { heartbeat } }), { code: 'CONFIG', message: /^heartbeat must be/ })
  }
})

test('28: a line has all keys of an event in alphabetical order', async (t) => {
  const { broker, port } = await serve(t)
  const client = await RawClient.open(t, port, get(path))
  await client.bodyWith('{}\n')
  await broker.publish(registered, { index: 7 })
  const response = await client.bodyWith('"Index":7}\n')
  const size = registeredLine.length.toString(16)
  assert.equal(
    response.rawBody.toString('latin1').toLowerCase(),
    `3\r\n{}\n\r\n${size}\r\n${registeredLine}\r\n`.toLowerCase(),
  )
  assert.equal(response.body, `{}\n${registeredLine}`)
})

test('28: absent strings are empty, an absent payload is null, filter keys are an array or null', async (t) => {
  const site = await serve(t)
  const { nextLine } = await followLines(t, site, path)
  await nextLine()
  await site.broker.publish({ topic: 'T', type: 't' }, { index: 1 })
  await site.broker.publish({ topic: 'T', type: 't', filterKeys: ['a', 'b'], payload: null }, { index: 2 })
  await site.broker.publish({ topic: 'T', type: 't', filterKeys: [] }, { index: 3 })
  const event = (index: number, keys: string) =>
    `{"Events":[{"FilterKeys":${keys},"Index":${index},"Key":"","Namespace":"","Payload":null,"Topic":"T","Type":"t"}],"Index":${index}}`
  assert.equal(await nextLine(), event(1, 'null'))
  assert.equal(await nextLine(), event(2, '["a","b"]'))
  assert.equal(await nextLine(), event(3, 'null'))
})

test('28: the events of a batch stay together and in order', async (t) => {
  const site = await serve(t)
  const { nextLine, next } = await followLines(t, site, path)
  await nextLine()
  await site.broker.publish(['a', 'b', 'c'].map((key) => ({ topic: 'T', type: 't', key })))
  const message = (await next()) as { Events: { Key: string; Index: number }[]; Index: number }
  assert.deepEqual(
    message.Events.map(({ Key, Index }) => [Key, Index]),
    [
      ['a', 1],
      ['b', 1],
      ['c', 1],
    ],
  )
})

for (const payload of [
  '{"CreateTime":1600000000000000001}',
  '{"z":1,"a":2,"Z":{"b":1.0,"a":1e2}}',
  '[-0,0.10,1E400,123456789012345678901234567890]',
  '{ "spaced" :  [ 1 , 2 ] }',
  '"\\u00e9 \\ud800 \\/ \\u2028"',
  '"é 𝄞 \u2028\u2029\u0085\ufeff"',
  '{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}',
  '{"same":1,"same":2}',
]) {
  test(`29: the payload ${escaped(payload)} leaves byte for byte as it came`, async (t) => {
    const site = await serve(t)
    const { nextLine } = await followLines(t, site, path)
    await nextLine()
    await site.broker.publish({ topic: 'T', type: 't', payload: new JsonText(payload) })
    const posted = await ask(site, '/v1/events', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: `{"topic":"T","payload":${payload},"type":"t"}`,
    })
    assert.equal(posted.status, 200, posted.text)
    for (const index of [1, 2]) {
      const line = await nextLine()
      assert.equal(
        line,
        `{"Events":[{"FilterKeys":null,"Index":${index},"Key":"","Namespace":"","Payload":${payload},"Topic":"T","Type":"t"}],"Index":${index}}`,
      )
    }
    assert.equal(Reflect.get({}, 'polluted'), undefined)
  })
}

/** `text` in ASCII, for the name of a test. */
function escaped(text: string): string {
  return text.replace(/[^ -~]/gu, (char) => `<${char.codePointAt(0)?.toString(16)}>`)
}

/** The indexes that a reader gets before the first heartbeat, gaps as `gap after-before`. */
async function indexesOf(t: TestContext, site: Site, query: string): Promise<(number | string)[]> {
  const { next, nextLine, stream } = await followLines(t, site, `${path}${query}`)
  assert.equal(await nextLine(), '{}')
  const found: (number | string)[] = []
  for (;;) {
    const message = (await next()) as { Index?: number; Gap?: { After: number; Before: number } }
    if (message.Gap) found.push(`gap ${message.Gap.After}-${message.Gap.Before}`)
    else if (message.Index) found.push(message.Index)
    else break
  }
  stream.close()
  return found
}

/** Follows all of the queries at once and compares what they got. */
async function assertIndexes(t: TestContext, site: Site, expected: Record<string, (number | string)[]>): Promise<void> {
  const found = Object.keys(expected).map(async (query) => [query, await indexesOf(t, site, query)] as const)
  assert.deepEqual(Object.fromEntries(await Promise.all(found)), expected)
}

test('30: `index` is inclusive, goes on at the next one that exists, and beyond the tail gives the tail', async (t) => {
  const site = await serve(t, { handler: { heartbeat: 100 } })
  for (const index of [10, 20, 30]) await site.broker.publish({ topic: 'T', type: 't' }, { index })
  await assertIndexes(t, site, {
    '': [10, 20, 30],
    '?index=': [10, 20, 30],
    '?index=0': [10, 20, 30],
    '?index=1': [10, 20, 30],
    '?index=10': [10, 20, 30],
    '?index=0010': [10, 20, 30],
    '?index=11': [20, 30],
    '?index=20': [20, 30],
    '?index=30': [30],
    '?index=31': [30],
    '?index=9007199254740991': [30],
  })
})

test('30: `index` in an empty history waits for the first event', async (t) => {
  const site = await serve(t)
  const readers = []
  for (const query of ['', '?index=1', '?index=500']) readers.push(await followLines(t, site, `${path}${query}`))
  for (const { nextLine } of readers) assert.equal(await nextLine(), '{}')
  await site.broker.publish(registered, { index: 7 })
  for (const { nextLine } of readers) assert.equal(`${await nextLine()}\n`, registeredLine)
})

test('30: an index that is no longer kept is told as a gap, `index=0` means the oldest and is not', async (t) => {
  const site = await serve(t, { brokerOptions: { capacity: 3 }, handler: { heartbeat: 100 } })
  await publishIndexes(site.broker, 1, 10)
  const oldest = site.broker.status.oldestIndex as number
  const kept = Array.from({ length: 10 - oldest + 1 }, (_, n) => oldest + n)
  assert.deepEqual(await indexesOf(t, site, '?index=0'), kept)
  assert.deepEqual(await indexesOf(t, site, '?index=2'), [`gap 1-${oldest}`, ...kept])
  assert.deepEqual(await indexesOf(t, site, `?index=${oldest - 1}`), [`gap ${oldest - 2}-${oldest}`, ...kept])
  assert.deepEqual(await indexesOf(t, site, `?index=${oldest}`), kept)
})

test('30: `topic` chooses topics and keys, repeated ones add up, none is everything', async (t) => {
  const site = await serve(t, { handler: { heartbeat: 100 } })
  const events: [topic: string, key: string, filterKeys?: string[]][] = [
    ['Job', 'web'],
    ['Job', 'db'],
    ['Node', 'web'],
    ['Node', 'n1', ['web']],
    ['job', 'web'],
    ['Alloc', 'a b/c&d=é'],
  ]
  for (const [topic, key, filterKeys = []] of events) await site.broker.publish({ topic, type: 't', key, filterKeys })
  await assertIndexes(t, site, {
    '': [1, 2, 3, 4, 5, 6],
    '?topic=*': [1, 2, 3, 4, 5, 6],
    '?topic=*:*': [1, 2, 3, 4, 5, 6],
    '?topic=Job': [1, 2],
    '?topic=Job:*': [1, 2],
    '?topic=Job:web': [1],
    '?topic=Node:web': [3, 4],
    '?topic=*:web': [1, 3, 4, 5],
    '?topic=Job:web&topic=Job:db': [1, 2],
    '?topic=Job:db&topic=Node': [2, 3, 4],
    '?topic=*:db&topic=job:web': [2, 5],
    '?topic=Nothing': [],
    '?topic=Alloc:a+b%2Fc%26d%3D%C3%A9': [6],
    '?topic=Alloc%3Aa%20b/c%26d=%C3%A9': [6],
    '?topic=__proto__&topic=constructor:toString': [],
  })
})

test('30: `namespace` is `default` unless asked otherwise, and `*` is all', async (t) => {
  const site = await serve(t, { handler: { heartbeat: 100 } })
  for (const namespace of ['default', 'prod', '', '*']) await site.broker.publish({ topic: 'T', type: 't', namespace })
  await assertIndexes(t, site, {
    '': [1, 3],
    '?namespace=': [1, 3],
    '?namespace=default': [1, 3],
    '?namespace=prod': [2, 3],
    '?namespace=PROD': [3],
    '?namespace=*': [1, 2, 3, 4],
    '?namespace=%2A': [1, 2, 3, 4],
  })
})

test('30: the token comes from `X-Nomad-Token` or `Authorization: Bearer`', async (t) => {
  const tokens: string[] = []
  const site = await serve(t, {
    brokerOptions: {
      authorize: ({ token }) => {
        tokens.push(token)
        return everything
      },
    },
  })
  for (const headers of [
    {},
    { 'x-nomad-token': 'secret-1' },
    { authorization: 'Bearer secret-2' },
    { authorization: 'bearer   secret-3' },
    { authorization: 'Basic dTpw' },
    { 'x-nomad-token': 'secret-4', authorization: 'Bearer secret-5' },
  ]) {
    const { stream } = await followLines(t, site, path, headers as Record<string, string>)
    stream.close()
  }
  assert.deepEqual(tokens, ['', 'secret-1', 'secret-2', 'secret-3', '', 'secret-4'])
})

for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
  test(`31: ${method} is refused with 405 and \`Invalid method\``, async (t) => {
    const site = await serve(t)
    const answer = await ask(site, path, { method })
    assert.equal(answer.status, 405)
    assert.equal(answer.text, 'Invalid method')
    assert.equal(answer.headers.allow, 'GET')
    assert.equal(answer.headers['content-type'], 'text/plain; charset=utf-8')
  })
}

test('31: HEAD is refused with 405 and no body', async (t) => {
  const { port } = await serve(t)
  const client = await RawClient.open(t, port, get(path, ['Connection: close'], 'HEAD'))
  const response = await client.toEnd()
  assert.equal(response.statusLine, 'HTTP/1.1 405 Method Not Allowed')
  assert.equal(response.rawBody.length, 0)
})

for (const [index, reason] of [
  ['x', 'invalid syntax'],
  ['-1', 'invalid syntax'],
  ['1.5', 'invalid syntax'],
  ['1e9', 'invalid syntax'],
  ['0x10', 'invalid syntax'],
  ['%205', 'invalid syntax'],
  ['5%20', 'invalid syntax'],
  ['+5', 'invalid syntax'],
  ['%00', 'invalid syntax'],
  ['5%0A', 'invalid syntax'],
  ['%D9%A3', 'invalid syntax'],
  ['9007199254740992', 'value out of range (2^53-1)'],
  ['18446744073709551616', 'value out of range (2^53-1)'],
  ['9'.repeat(400), 'value out of range (2^53-1)'],
] as const) {
  test(`31: index=${index.slice(0, 24)} is refused with 400 and \`Unable to parse index\``, async (t) => {
    const site = await serve(t)
    const answer = await ask(site, `${path}?index=${index}`)
    assert.equal(answer.status, 400)
    assert.ok(answer.text.startsWith('Unable to parse index: strconv.ParseUint: parsing "'), answer.text)
    assert.ok(answer.text.endsWith(`": ${reason}`), answer.text)
    assert.ok(!/[\r\n]/.test(answer.text), 'one line')
    assert.ok(answer.text.length < 250, 'a stranger does not choose its length')
    assert.equal(answer.headers['content-type'], 'text/plain; charset=utf-8')
    assert.equal(site.broker.status.subscriptions, 0)
  })
}

test('31: a topic with two colons is refused with 400 and the text of Nomad', async (t) => {
  const site = await serve(t)
  for (const query of ['topic=a:b:c', 'topic=Job&topic=a:b:c', 'topic=a%3Ab%3Ac']) {
    const answer = await ask(site, `${path}?${query}`)
    assert.equal(answer.status, 400)
    assert.equal(
      answer.text,
      'Invalid topic query: error parsing topics: Invalid key value pair for topic, topic: a:b:c',
    )
    assert.equal(answer.headers['content-type'], 'text/plain; charset=utf-8')
  }
})

test('31: a reader without access is refused with 403 and `Permission denied`, whatever was thrown', async (t) => {
  const secret = 'the database said: password of root is hunter2'
  const site = await serve(t, {
    brokerOptions: {
      authorize: ({ token }) => {
        if (token === 'sync') throw new Error(secret)
        if (token === 'forbidden') throw new SpillwayError('FORBIDDEN', secret)
        return Promise.reject(new Error(secret))
      },
    },
  })
  for (const token of ['', 'sync', 'forbidden']) {
    const answer = await ask(site, path, { headers: { 'x-nomad-token': token } })
    assert.equal(answer.status, 403)
    assert.equal(answer.text, 'Permission denied')
    assert.equal(answer.headers['content-type'], 'text/plain; charset=utf-8')
    assert.equal(site.broker.status.subscriptions, 0)
  }
})

test('31: after a refusal the same connection serves the next request', async (t) => {
  const { port } = await serve(t)
  const client = await RawClient.open(t, port, get(`${path}?index=x`))
  await client.bodyWith('invalid syntax')
  const refused = client.bytes.length
  client.send(get(path))
  await until(() => client.text.slice(refused).includes('3\r\n{}\n\r\n'), 'the stream opens')
})

test('32: the end of a stream is a last line with the error, then the last chunk', async (t) => {
  const { broker, port } = await serve(t)
  const client = await RawClient.open(t, port, get(path, ['Connection: close']))
  await client.bodyWith('{}\n')
  await broker.publish(registered, { index: 7 })
  await client.bodyWith('"Index":7}\n')
  await broker.close()
  const response = await client.toEnd()
  assert.equal(
    response.body,
    `{}\n${registeredLine}{"Error":{"Code":"SHUTDOWN","Message":"Subscription closed by server, client should resubscribe."}}\n`,
  )
  assert.ok(response.complete, 'the last chunk')
  assert.equal(client.error, undefined)
  const refused = await ask({ port }, path)
  assert.equal(refused.status, 503)
})

test('32: an error does not end a connection that can be used again', async (t) => {
  const site = await serve(t)
  const client = await RawClient.open(t, site.port, get(path, ['X-Nomad-Token: a']))
  await client.bodyWith('{}\n')
  site.broker.revoke('a')
  const response = await client.responseWith(({ complete }) => complete, 'the end of the body')
  assert.equal(
    response.body,
    '{}\n{"Error":{"Code":"REVOKED","Message":"The rights of this subscription were revoked."}}\n',
  )
  const before = client.bytes.length
  client.send(get('/healthz'))
  await until(() => client.text.slice(before).endsWith('ok\n'), 'an answer on the same connection')
})

test('32: a gap is a line of its own before the batch after it', async (t) => {
  const { broker, port } = await serve(t, { brokerOptions: { capacity: 3 } })
  await publishIndexes(broker, 1, 10)
  const oldest = broker.status.oldestIndex as number
  const client = await RawClient.open(t, port, get(`${path}?index=2`))
  const { body } = await client.bodyWith('"Index":10}\n')
  const [first, gap, batch] = body.split('\n')
  assert.equal(first, '{}')
  assert.equal(gap, `{"Gap":{"After":1,"Before":${oldest}}}`)
  assert.match(batch as string, new RegExp(`"Index":${oldest}}$`))
})

test('32: lines with an index and no events come only when asked for', async (t) => {
  const site = await serve(t, { handler: { heartbeat: 100 } })
  await publishIndexes(site.broker, 1, 3)
  const plain = await followLines(t, site, `${path}?topic=None`)
  const asking = await followLines(t, site, `${path}?topic=None&bookmarks=true`)
  const declined = await followLines(t, site, `${path}?topic=None&bookmarks=false`)
  for (const { nextLine } of [plain, asking, declined]) assert.equal(await nextLine(), '{}')
  assert.equal(await asking.nextLine(), '{"Index":3}')
  await publishIndexes(site.broker, 4, 9)
  await until(async () => (await asking.nextLine()) === '{"Index":9}', 'the bookmark moves on')
  for (const { nextLine } of [plain, declined]) {
    assert.equal(await nextLine(), '{}')
    assert.equal(await nextLine(), '{}')
  }
})

test('26: a client that speaks HTTP/1.0 gets a body without chunks that ends with the connection', async (t) => {
  const { broker, port } = await serve(t)
  const client = await RawClient.open(t, port, get(path, [], 'GET', '1.0'))
  await client.responseWith(({ rawBody }) => rawBody.length >= 3, 'the first line')
  await broker.publish(registered, { index: 7 })
  await client.bodyWith('"Index":7}\n')
  await broker.close()
  const response = await client.toEnd()
  assert.equal(response.chunked, false)
  assert.equal(response.header('content-length'), undefined)
  assert.ok(response.rawBody.toString().startsWith(`{}\n${registeredLine}{"Error":{"Code":"SHUTDOWN",`))
  assert.ok(response.rawBody.toString().endsWith('"}}\n'))
})

test('33: a client that goes away frees its subscription within 1 s', async (t) => {
  const site = await serve(t)
  for (const leave of ['destroy', 'resetAndDestroy', 'end'] as const) {
    const client = await RawClient.open(t, site.port, get(path))
    await client.bodyWith('{}\n')
    assert.equal(site.broker.status.subscriptions, 1)
    client.socket[leave]()
    await until(() => site.broker.status.subscriptions === 0, `no subscription after ${leave}`, 1000)
    assert.equal((await ask(site, '/v1/status')).json.streams, 0)
  }
})
