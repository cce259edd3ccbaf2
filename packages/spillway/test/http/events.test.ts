import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { test } from 'node:test'
import { createBroker } from '../../src/core/broker.ts'
import { JsonText } from '../../src/core/event.ts'
import { toNodeHandler } from '../../src/http/node.ts'
import { ask, publishIndexes, serve, until } from '../support/http.ts'
import { get, RawClient } from '../support/raw.ts'
import { followNdjson, followSse } from '../support/streams.ts'

const sse = ['Accept: text/event-stream']
const placed = { topic: 'Order', type: 'OrderPlaced', key: 'A1', namespace: 'shop', filterKeys: ['c7'] }

test('SSE: the headers keep proxies from holding back, and the position comes at once', async (t) => {
  const { broker, port } = await serve(t, { handler: { retry: 2500 } })
  const client = await RawClient.open(t, port, get('/v1/events', sse))
  const response = await client.bodyWith('\n\n')
  assert.equal(response.statusLine, 'HTTP/1.1 200 OK')
  assert.equal(response.header('content-type'), 'text/event-stream; charset=utf-8')
  assert.equal(response.header('cache-control'), 'no-cache, no-transform')
  assert.equal(response.header('x-accel-buffering'), 'no')
  assert.equal(response.header('transfer-encoding'), 'chunked')
  assert.equal(response.body, `retry: 2500\nid: ${broker.status.epoch}:0\n\n`)
})

test('SSE: a batch is one message whose id is the cursor after it, byte for byte', async (t) => {
  const { broker, port } = await serve(t)
  const client = await RawClient.open(t, port, get('/v1/events', sse))
  const opening = (await client.bodyWith('\n\n')).body
  await broker.publish(
    [
      { ...placed, payload: new JsonText('{"at":1600000000000000001}') },
      { topic: 'T', type: 't' },
    ],
    {
      index: 7,
    },
  )
  const { body } = await client.bodyWith('data: ')
  const cursor = `${broker.status.epoch}:7`
  assert.equal(
    body.slice(opening.length),
    `id: ${cursor}\ndata: {"index":7,"cursor":"${cursor}","events":[` +
      '{"topic":"Order","type":"OrderPlaced","key":"A1","namespace":"shop","filterKeys":["c7"],"payload":{"at":1600000000000000001}},' +
      '{"topic":"T","type":"t","key":"","namespace":"","filterKeys":[],"payload":null}]}\n\n',
  )
})

test('NDJSON: the first line is the position, then a batch is one line, byte for byte', async (t) => {
  const { broker, port } = await serve(t)
  await publishIndexes(broker, 3, 5)
  const client = await RawClient.open(t, port, get('/v1/events', ['Accept: application/x-ndjson']))
  const response = await client.bodyWith('\n')
  const { epoch } = broker.status
  assert.equal(response.header('content-type'), 'application/x-ndjson; charset=utf-8')
  assert.equal(response.header('cache-control'), 'no-cache, no-transform')
  assert.equal(response.header('x-accel-buffering'), 'no')
  assert.equal(response.body, `{"open":{"cursor":"${epoch}:5","oldest":3,"newest":5}}\n`)
  await broker.publish({ ...placed, payload: new JsonText('[1.0]') }, { index: 7 })
  const { body } = await client.bodyWith('"index":7')
  assert.equal(
    body.slice(response.body.length),
    `{"index":7,"cursor":"${epoch}:7","events":[{"topic":"Order","type":"OrderPlaced","key":"A1","namespace":"shop","filterKeys":["c7"],"payload":[1.0]}]}\n`,
  )
})

test('NDJSON: before the first event nothing is the oldest', async (t) => {
  const site = await serve(t)
  const { nextLine } = await followNdjson(t, site)
  assert.equal(await nextLine(), `{"open":{"cursor":"${site.broker.status.epoch}:0","oldest":null,"newest":0}}`)
})

test('SSE: a heartbeat is a block with only the id, which moves on without matching events', async (t) => {
  const site = await serve(t, { handler: { heartbeat: 100 } })
  const { nextBlock, parser } = await followSse(t, site, '?topic=None')
  const { epoch } = site.broker.status
  assert.deepEqual((await nextBlock())?.fields, [
    ['retry', '1000'],
    ['id', `${epoch}:0`],
  ])
  await publishIndexes(site.broker, 1, 5)
  await until(async () => {
    const block = await nextBlock()
    assert.deepEqual(block, { fields: [['id', parser.lastEventId]], message: undefined })
    return parser.lastEventId === `${epoch}:5`
  }, 'the position moves on')
})

test('NDJSON: a heartbeat is the position, which moves on without matching events', async (t) => {
  const site = await serve(t, { handler: { heartbeat: 100 } })
  const { next, nextLine } = await followNdjson(t, site, '?topic=None')
  await next()
  await publishIndexes(site.broker, 1, 5)
  await until(async () => {
    const line = (await nextLine()) as string
    assert.match(line, /^\{"progress":\{"cursor":"[^"]+:[0-5]"\}\}$/)
    return line.includes(':5"')
  }, 'the position moves on')
})

test('a reader that saw only the opening or a heartbeat resumes exactly', async (t) => {
  const site = await serve(t, { handler: { heartbeat: 100 } })
  await publishIndexes(site.broker, 1, 3)
  const first = await followSse(t, site)
  await first.nextBlock()
  first.stream.close()
  await publishIndexes(site.broker, 4, 4)
  const second = await followSse(t, site, '?topic=None', { 'last-event-id': first.parser.lastEventId })
  await second.nextBlock()
  await second.nextBlock()
  second.stream.close()
  assert.equal(second.parser.lastEventId, `${site.broker.status.epoch}:4`)
  const third = await followSse(t, site, '', { 'last-event-id': first.parser.lastEventId })
  assert.equal((await third.nextMessage())?.lastEventId, `${site.broker.status.epoch}:4`)
})

test('from=latest is the default, from=earliest is all that is kept, a cursor is what comes after it', async (t) => {
  const site = await serve(t)
  await publishIndexes(site.broker, 1, 5)
  const { epoch } = site.broker.status
  const readers = []
  for (const query of ['', '?from=latest', '?from=', '?from=earliest', `?from=${epoch}:3`, `?from=${epoch}%3A5`]) {
    readers.push({ query, reader: await followNdjson(t, site, query) })
  }
  await publishIndexes(site.broker, 6, 6)
  const found: Record<string, number[]> = {}
  for (const { query, reader } of readers) {
    await reader.next()
    const indexes: number[] = []
    while (indexes.at(-1) !== 6) indexes.push(((await reader.next()) as { index: number }).index)
    found[query.replace(epoch, 'epoch')] = indexes
  }
  assert.deepEqual(found, {
    '': [6],
    '?from=latest': [6],
    '?from=': [6],
    '?from=earliest': [1, 2, 3, 4, 5, 6],
    '?from=epoch:3': [4, 5, 6],
    '?from=epoch%3A5': [6],
  })
})

test('Last-Event-ID wins over from, in every format, and an empty one counts as none', async (t) => {
  const site = await serve(t)
  await publishIndexes(site.broker, 1, 5)
  const { epoch } = site.broker.status
  const headers = { 'last-event-id': `${epoch}:4` }
  const events = await followSse(t, site, `?from=${epoch}:1`, headers)
  assert.equal((await events.nextMessage())?.lastEventId, `${epoch}:5`)
  const lines = await followNdjson(t, site, '?from=earliest', headers)
  assert.match((await lines.nextLine()) as string, /"open":\{"cursor":"[^"]*:4"/)
  assert.equal(((await lines.next()) as { index: number }).index, 5)
  const none = await followSse(t, site, '?from=earliest', { 'last-event-id': '' })
  assert.equal((await none.nextMessage())?.lastEventId, `${epoch}:1`)
})

test('a reader is told what it missed before it goes on, with its range and reason', async (t) => {
  const site = await serve(t, { brokerOptions: { capacity: 3 } })
  await publishIndexes(site.broker, 1, 10)
  const { epoch, oldestIndex } = site.broker.status
  const oldest = oldestIndex as number
  const gap = { gap: { after: 2, before: oldest, reason: 'retention', cursor: `${epoch}:${oldest - 1}` } }
  const events = await followSse(t, site, `?from=${epoch}:2`)
  const message = await events.nextMessage()
  assert.deepEqual(message, { type: 'gap', data: JSON.stringify(gap), lastEventId: `${epoch}:${oldest - 1}` })
  assert.equal((await events.nextMessage())?.lastEventId, `${epoch}:${oldest}`)
  const lines = await followNdjson(t, site, `?from=${epoch}:2`)
  await lines.next()
  assert.deepEqual(await lines.next(), gap)
  assert.equal(((await lines.next()) as { index: number }).index, oldest)
})

test('a cursor at the edge of what is kept loses nothing and is told nothing', async (t) => {
  const site = await serve(t, { brokerOptions: { capacity: 3 } })
  await publishIndexes(site.broker, 1, 10)
  const { epoch, oldestIndex, floor } = site.broker.status
  assert.equal(floor, (oldestIndex as number) - 1)
  const { nextMessage } = await followSse(t, site, `?from=${epoch}:${floor}`)
  assert.equal((await nextMessage())?.lastEventId, `${epoch}:${oldestIndex}`)
})

test('a cursor of another history is told as a reset, then all that is kept follows', async (t) => {
  const site = await serve(t)
  await publishIndexes(site.broker, 1, 3)
  const { epoch } = site.broker.status
  const events = await followSse(t, site, '', { 'last-event-id': 'other-epoch:900' })
  const message = await events.nextMessage()
  const reset = { reset: { after: 900, before: 1, reason: 'epoch', cursor: `${epoch}:0` } }
  assert.deepEqual(message, { type: 'reset', data: JSON.stringify(reset), lastEventId: `${epoch}:0` })
  assert.equal((await events.nextMessage())?.lastEventId, `${epoch}:1`)
  const lines = await followNdjson(t, site, '?from=other-epoch:900')
  await lines.next()
  assert.deepEqual(await lines.next(), reset)
})

test('a cursor beyond the newest index is told as truncated', async (t) => {
  const site = await serve(t)
  await publishIndexes(site.broker, 1, 3)
  const { epoch } = site.broker.status
  const { nextMessage } = await followSse(t, site, `?from=${epoch}:9`)
  const gap = { gap: { after: 9, before: 4, reason: 'truncated', cursor: `${epoch}:3` } }
  assert.deepEqual(await nextMessage(), { type: 'gap', data: JSON.stringify(gap), lastEventId: `${epoch}:3` })
  await publishIndexes(site.broker, 4, 4)
  assert.equal((await nextMessage())?.lastEventId, `${epoch}:4`)
})

test('SSE: the last word is a closed event with what to do, then a clean end', async (t) => {
  const site = await serve(t, { handler: { retry: 700 } })
  await publishIndexes(site.broker, 1, 2)
  const { nextMessage, nextBlock, stream, parser } = await followSse(t, site)
  await nextBlock()
  const { epoch } = site.broker.status
  await site.broker.close()
  const message = await nextMessage()
  const closed = {
    code: 'SHUTDOWN',
    message: 'Subscription closed by server, client should resubscribe.',
    retry: 700,
    cursor: `${epoch}:2`,
  }
  assert.deepEqual(message, { type: 'closed', data: JSON.stringify({ closed }), lastEventId: `${epoch}:2` })
  assert.equal(await nextBlock(), undefined)
  assert.equal(stream.ended, 'clean')
  assert.equal(parser.rest, '')
})

test('NDJSON: the last word is a closed line; retry is null if coming back does not help', async (t) => {
  const site = await serve(t)
  const { next, nextLine, stream } = await followNdjson(t, site, '', { authorization: 'Bearer a' })
  await next()
  site.broker.revoke('a')
  const closed = {
    code: 'REVOKED',
    message: 'The rights of this subscription were revoked.',
    retry: null,
    cursor: `${site.broker.status.epoch}:0`,
  }
  assert.equal(await nextLine(), JSON.stringify({ closed }))
  assert.equal(await nextLine(), undefined)
  assert.equal(stream.ended, 'clean')
})

test('`topic` and `namespace` choose what a reader gets; a key may hold colons', async (t) => {
  const site = await serve(t)
  const events = [
    { topic: 'Job', type: 't', key: 'web' },
    { topic: 'Job', type: 't', key: 'a:b' },
    { topic: 'Node', type: 't', key: 'web', namespace: 'prod' },
    { topic: 'Node', type: 't', key: 'n1', namespace: 'test', filterKeys: ['web'] },
  ]
  for (const event of events) await site.broker.publish(event)
  await site.broker.publish({ topic: 'End', type: 't', key: 'web' })
  for (const [query, expected] of Object.entries({
    '': [1, 2, 3, 4],
    '&topic=*': [1, 2, 3, 4],
    '&topic=Job&topic=End': [1, 2],
    '&topic=Job:a:b&topic=End': [2],
    '&topic=Job:a%3Ab&topic=End:*': [2],
    '&topic=*:web': [1, 3, 4],
    '&namespace=prod': [1, 2, 3],
    '&namespace=prod&namespace=test': [1, 2, 3, 4],
    '&namespace=none': [1, 2],
    '&namespace=*': [1, 2, 3, 4],
  })) {
    const { next, stream } = await followNdjson(t, site, `?from=earliest${query}`)
    await next()
    const indexes: number[] = []
    while (indexes.at(-1) !== 5) indexes.push(((await next()) as { index: number }).index)
    assert.deepEqual(indexes, [...expected, 5], query)
    stream.close()
  }
})

test('of a batch a reader gets the events that it asked for, under the same index and cursor', async (t) => {
  const site = await serve(t)
  await site.broker.publish(['a', 'b', 'c', 'a'].map((key, n) => ({ topic: 'T', type: 't', key, payload: n })))
  const { next } = await followNdjson(t, site, '?from=earliest&topic=T:a')
  await next()
  const batch = (await next()) as { index: number; cursor: string; events: { payload: number }[] }
  assert.deepEqual(
    [batch.index, batch.cursor, batch.events.map(({ payload }) => payload)],
    [1, `${site.broker.status.epoch}:1`, [0, 3]],
  )
})

test('the format is what Accept names first of those that exist', async (t) => {
  const site = await serve(t)
  const typeFor = async (accept: string | undefined) => {
    const client = await RawClient.open(
      t,
      site.port,
      get('/v1/events', accept === undefined ? [] : [`Accept: ${accept}`]),
    )
    const response = await client.responseWith(() => true, 'headers')
    client.socket.destroy()
    return `${response.statusLine.split(' ')[1]} ${response.header('content-type')}`
  }
  const events = '200 text/event-stream; charset=utf-8'
  const lines = '200 application/x-ndjson; charset=utf-8'
  const refused = '406 application/problem+json'
  for (const [accept, expected] of [
    [undefined, events],
    ['*/*', events],
    ['text/event-stream', events],
    ['TEXT/Event-Stream; charset=utf-8', events],
    ['text/*', events],
    ['application/x-ndjson', lines],
    ['application/ndjson;q=0.9, text/event-stream;q=0.1', lines],
    ['text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8', events],
    ['application/json', refused],
    ['text/html', refused],
    ['text/event-streams', refused],
  ] as const) {
    assert.equal(await typeFor(accept), expected, accept ?? 'without Accept')
  }
})

for (const [query, headers, text] of [
  [
    '?form=earliest',
    {},
    'The query has the unknown parameter "form". Known: topic, namespace, from, last, exact, ticket.',
  ],
  [
    '?__proto__=x',
    {},
    'The query has the unknown parameter "__proto__". Known: topic, namespace, from, last, exact, ticket.',
  ],
  ['?index=5', {}, 'The query has the unknown parameter "index". Known: topic, namespace, from, last, exact, ticket.'],
  ['?from=latest&from=earliest', {}, 'from must be given once, got 2 values.'],
  ['?from=5', {}, 'cursor must be one that this server or broker gave out, got "5".'],
  ['?from=Latest', {}, 'cursor must be one that this server or broker gave out, got "Latest".'],
  ['?from=epoch:-1', {}, 'cursor must be one that this server or broker gave out, got "epoch:-1".'],
  ['?from=epoch:01', {}, 'cursor must be one that this server or broker gave out, got "epoch:01".'],
  ['?from=epoch:9007199254740992', {}, /^cursor must be one that this server or broker gave out/],
  [
    '?from=epoch:1%0D%0AX-Evil:%201',
    {},
    /^cursor must be one that this server or broker gave out, got "epoch:1\\r\\nX-Evil: 1"\.$/,
  ],
  [`?from=${'e'.repeat(65)}:1`, {}, /^cursor must be one that this server or broker gave out/],
  ['', { 'last-event-id': 'garbage' }, 'cursor must be one that this server or broker gave out, got "garbage".'],
  ['?topic=', {}, 'topic must be a topic or topic:key, got "".'],
  ['?topic=:key', {}, 'topic must be a topic or topic:key, got ":key".'],
  ['?topic=%ff', {}, 'The query has an escape that is no UTF-8: "%ff".'],
  ['?topic=%', {}, 'The query has an escape that is no UTF-8: "%".'],
  ['?topic=%ed%a0%80', {}, 'The query has an escape that is no UTF-8: "%ed%a0%80".'],
  [`?${'topic=a&'.repeat(257)}`, {}, 'topic may be given 256 times, got 257.'],
] as const) {
  test(`GET /v1/events${query.slice(0, 40)} ${JSON.stringify(headers)} is refused with 400 and the reason`, async (t) => {
    const site = await serve(t)
    const answer = await ask(site, `/v1/events${query}`, { headers: { ...headers } })
    assert.equal(answer.status, 400)
    assert.equal(answer.headers['content-type'], 'application/problem+json')
    assert.equal(answer.headers['cache-control'], 'no-store')
    assert.equal(answer.headers['x-evil'], undefined)
    const { type, title, status, detail, code, retryable, advice, ...rest } = answer.json
    assert.deepEqual([type, title, status, code, retryable], ['about:blank', 'INVALID', 400, 'INVALID', false])
    assert.equal(advice, 'Correct the field that the message names.')
    assert.deepEqual(rest, {})
    if (typeof text === 'string') assert.equal(detail, text)
    else assert.match(detail as string, text)
    assert.equal(site.broker.status.subscriptions, 0)
  })
}

test('256 topics are accepted', async (t) => {
  const site = await serve(t)
  const query = Array.from({ length: 256 }, (_, n) => `topic=T${n}`).join('&')
  await site.broker.publish({ topic: 'T255', type: 't' })
  const { nextMessage } = await followSse(t, site, `?from=earliest&${query}`)
  assert.match((await nextMessage())?.data ?? '', /"T255"/)
})

test('a request line of 64 kB and 10,000 topics are refused by the server before us, and it lives on', async (t) => {
  const site = await serve(t)
  for (const query of [`topic=${'x'.repeat(64 * 1024)}`, 'topic=abc&'.repeat(10_000)]) {
    const client = await RawClient.open(t, site.port, get(`/v1/events?${query}`))
    const response = await client.toEnd()
    assert.match(response.statusLine, /^HTTP\/1\.1 (414|431) /)
  }
  assert.equal((await ask(site, '/healthz')).status, 200)
})

test('GET /v1/status tells what is kept', async (t) => {
  const site = await serve(t, { brokerOptions: { capacity: 3 } })
  assert.deepEqual((await ask(site, '/v1/status')).json, {
    oldest: null,
    newest: 0,
    epoch: site.broker.status.epoch,
    cursor: `${site.broker.status.epoch}:0`,
    floor: 0,
    retained: 0,
    bytes: 0,
    subscriptions: 0,
    streams: 0,
  })
  await publishIndexes(site.broker, 1, 10)
  const { nextBlock } = await followSse(t, site)
  await nextBlock()
  const answer = await ask(site, '/v1/status')
  const { oldestIndex, newestIndex, ...rest } = site.broker.status
  assert.deepEqual(answer.json, { oldest: oldestIndex, newest: newestIndex, ...rest, streams: 1 })
  assert.equal(answer.headers['content-type'], 'application/json')
  assert.equal(answer.headers['cache-control'], 'no-store')
})

test('GET /healthz answers ok', async (t) => {
  const site = await serve(t)
  const answer = await ask(site, '/healthz?probe=1')
  assert.deepEqual([answer.status, answer.text], [200, 'ok\n'])
})

test('HEAD gets the headers of GET and no body where GET has an end', async (t) => {
  const { port } = await serve(t)
  for (const path of ['/v1/status', '/healthz']) {
    const heads = await Promise.all(
      ['HEAD', 'GET'].map(async (method) => {
        const client = await RawClient.open(t, port, get(path, ['Connection: close'], method))
        return client.toEnd()
      }),
    )
    const [head, whole] = heads
    assert.equal(head?.rawBody.length, 0)
    assert.equal(head?.header('content-length'), whole?.header('content-length'))
    assert.equal(Number(whole?.header('content-length')), whole?.rawBody.length)
  }
})

test('a method that does not fit is refused with 405 and Allow', async (t) => {
  const site = await serve(t)
  for (const [path, method, allow] of [
    ['/v1/events', 'PUT', 'GET, POST'],
    ['/v1/events', 'DELETE', 'GET, POST'],
    ['/v1/events', 'HEAD', 'GET, POST'],
    ['/v1/status', 'POST', 'GET, HEAD'],
    ['/healthz', 'DELETE', 'GET, HEAD'],
  ] as const) {
    const answer = await ask(site, path, { method })
    assert.deepEqual([answer.status, answer.headers.allow], [405, allow], `${method} ${path}`)
    if (method !== 'HEAD') assert.equal(answer.json.code, 'METHOD')
  }
})

test('other paths are 404', async (t) => {
  const site = await serve(t)
  for (const path of [
    '/',
    '/v1/events/',
    '/v1',
    '/V1/events',
    '/v1/event/stream/',
    '/v1/events%00',
    '/..%2f',
    '//v1/events',
    '/v1/%65vents',
  ]) {
    const answer = await ask(site, path)
    assert.deepEqual([answer.status, answer.json.code], [404, 'NOT_FOUND'], path)
    assert.equal(answer.headers['content-type'], 'application/problem+json')
  }
})

test('a target in absolute form is understood, as RFC 9112 3.2.2 demands', async (t) => {
  const { port } = await serve(t)
  const client = await RawClient.open(t, port, get(`http://127.0.0.1:${port}/healthz`, ['Connection: close']))
  assert.equal((await client.toEnd()).statusLine, 'HTTP/1.1 200 OK')
})

test('paths that are not ours go to `next` where there is one', async (t) => {
  const broker = createBroker()
  const handle = toNodeHandler(broker)
  const server = createServer((request, response) => handle(request, response, () => response.end('mine')))
  server.listen(0, '127.0.0.1')
  t.after(async () => {
    server.close()
    await broker.close()
  })
  await until(() => server.listening, 'the server listens')
  const { port } = server.address() as { port: number }
  assert.equal((await ask({ port }, '/elsewhere')).text, 'mine')
  assert.equal((await ask({ port }, '/healthz')).text, 'ok\n')
})

test('SSE over HTTP/1.0 ends with the connection', async (t) => {
  const { broker, port } = await serve(t)
  const client = await RawClient.open(t, port, get('/v1/events', sse, 'GET', '1.0'))
  await client.bodyWith('id: ')
  await broker.close()
  const response = await client.toEnd()
  assert.equal(response.chunked, false)
  assert.match(response.body, /^retry: 1000\nid: [^\n]+\n\nevent: closed\nid: [^\n]+\ndata: \{[^\n]*\}\n\n$/)
})

test('a stream on a connection that is kept leaves it usable for the next request', async (t) => {
  const site = await serve(t)
  const client = await RawClient.open(t, site.port, get('/v1/events', [...sse, 'X-Nomad-Token: a']))
  await client.bodyWith('id: ')
  site.broker.revoke('a')
  await client.responseWith(({ complete }) => complete, 'the end of the body')
  const before = client.bytes.length
  client.send(get('/v1/events', sse))
  await until(() => client.text.slice(before).includes('id: '), 'a second stream on the same connection')
  assert.equal(site.broker.status.subscriptions, 1)
})
