import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { createBroker } from '../../src/core/broker.ts'
import { memoryLog } from '../../src/core/memory-log.ts'
import { type Answer, ask, keptBy, post, type Site, serve, until } from '../support/http.ts'
import { posting, RawClient, type RawResponse } from '../support/raw.ts'
import { followNdjson } from '../support/streams.ts'

const event = { topic: 'Order', type: 'OrderPlaced' }
const ndjson = { 'content-type': 'application/x-ndjson' }

/** The batches that are kept, as NDJSON lines. */
async function stored(t: TestContext, site: Site): Promise<string[]> {
  const { next, nextLine, stream } = await followNdjson(t, site, '?from=earliest')
  await next()
  const lines: string[] = []
  for (let n = site.broker.status.retained; n > 0; n--) lines.push((await nextLine()) as string)
  stream.close()
  return lines
}

/** A line of NDJSON with the events `text`. */
function line(site: Site, index: number, text: string): string {
  return `{"index":${index},"cursor":"${site.broker.status.epoch}:${index}","events":[${text}]}`
}

const plain = '{"topic":"Order","type":"OrderPlaced","key":"","namespace":"","filterKeys":[],"payload":null}'

test('an event is stored as one batch and answered with its index and cursor', async (t) => {
  const site = await serve(t)
  const answer = await post(site, event)
  assert.deepEqual([answer.status, answer.headers['content-type']], [200, 'application/json'])
  assert.equal(answer.text, `{"index":1,"cursor":"${site.broker.status.epoch}:1","batches":1}\n`)
  assert.deepEqual(await stored(t, site), [line(site, 1, plain)])
})

test('an array is one batch under one index', async (t) => {
  const site = await serve(t)
  const answer = await post(site, [event, event])
  assert.deepEqual([answer.json.index, answer.json.batches], [1, 1])
  assert.deepEqual(await stored(t, site), [line(site, 1, `${plain},${plain}`)])
})

test('a batch may ask for its index, which may skip numbers', async (t) => {
  const site = await serve(t)
  assert.equal((await post(site, { index: 7, events: [event] })).json.index, 7)
  assert.equal((await post(site, { events: [event], index: 9007199254740991 })).json.index, 9007199254740991)
  assert.deepEqual(await stored(t, site), [line(site, 7, plain), line(site, 9007199254740991, plain)])
  const full = await post(site, event)
  assert.deepEqual([full.status, full.json.code], [409, 'INDEX_ORDER'])
  assert.match(full.json.detail as string, /This history is full\.$/)
})

test('NDJSON is one batch a line, in any form, whatever ends a line', async (t) => {
  const site = await serve(t)
  const body = ['{"topic":"Order","type":"OrderPlaced"}', '', '[{"topic":"Order","type":"OrderPlaced"}]\r', '  ']
  const answer = await post(
    site,
    `${body.join('\n')}\n{"index":9,"events":[{"topic":"Order","type":"OrderPlaced"}]}`,
    ndjson,
  )
  assert.deepEqual([answer.status, answer.json.index, answer.json.batches], [200, 9, 3], answer.text)
  assert.deepEqual(await stored(t, site), [line(site, 1, plain), line(site, 2, plain), line(site, 9, plain)])
})

test('nothing to publish changes nothing and gives the newest index', async (t) => {
  const site = await serve(t)
  await post(site, { index: 5, events: [event] })
  for (const [body, headers] of [
    ['[]', {}],
    ['{"events":[]}', {}],
    ['', ndjson],
    ['\n\n  \n', ndjson],
  ] as const) {
    const answer = await post(site, body, headers)
    assert.deepEqual([answer.status, answer.json.index, answer.json.batches], [200, 5, 0], JSON.stringify(body))
  }
  assert.equal(site.broker.status.retained, 1)
})

test('all fields arrive, and a payload keeps its bytes', async (t) => {
  const site = await serve(t)
  const payload = '{ "b":1600000000000000001,"a":[1.0,1e400,-0],"b":"\\ud800\\u0000\\n" }'
  const body = `{"payload":${payload},"filterKeys":["é","𝄞"],"namespace":"n","key":"k","type":"t","topic":"T"}`
  assert.equal((await post(site, body)).status, 200)
  assert.deepEqual(await stored(t, site), [
    line(site, 1, `{"topic":"T","type":"t","key":"k","namespace":"n","filterKeys":["é","𝄞"],"payload":${payload}}`),
  ])
})

test('line breaks between the tokens of a payload become spaces, nothing else changes', async (t) => {
  const site = await serve(t)
  const body = '{\r\n"topic" :\n"T",\n"type":\t"t",\n"payload":\n{\n"a": [\r\n1,\r2],\t"b":"\\r\\n"\n}\n}'
  assert.equal((await post(site, body)).status, 200)
  assert.deepEqual(await stored(t, site), [
    line(
      site,
      1,
      '{"topic":"T","type":"t","key":"","namespace":"","filterKeys":[],"payload":{ "a": [  1, 2],\t"b":"\\r\\n" }}',
    ),
  ])
})

test('a byte order mark before the body is passed over', async (t) => {
  const site = await serve(t)
  assert.equal((await post(site, `\ufeff${JSON.stringify(event)}`)).status, 200)
  assert.deepEqual(await stored(t, site), [line(site, 1, plain)])
})

test('content types are compared without their parameters and case', async (t) => {
  const site = await serve(t)
  for (const type of [
    'application/json; charset=utf-8',
    'Application/JSON',
    'application/ndjson',
    'application/x-ndjson ;x=y',
  ]) {
    assert.equal((await post(site, event, { 'content-type': type })).status, 200, type)
  }
})

test('an escaped lone surrogate and `__proto__` in a payload are stored untouched', async (t) => {
  const site = await serve(t)
  const payload = '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"s":"\\ud800 \\udc00"}'
  assert.equal((await post(site, `{"topic":"T","type":"t","payload":${payload}}`)).status, 200)
  assert.match((await stored(t, site))[0] as string, /"payload":\{"__proto__":\{"polluted":1\}/)
  assert.ok((await stored(t, site))[0]?.includes(payload))
  const subscription = site.broker.subscribe({ from: 'earliest' })
  const { events } = await subscription.next()
  assert.deepEqual(Object.keys(events[0]?.payload as object), ['__proto__', 'constructor', 's'])
  subscription.close()
})

/** A body that is refused: its name, the bytes, headers, and what the answer says. */
interface Refusal {
  readonly name: string
  readonly body: string | Uint8Array
  readonly headers?: Record<string, string>
  readonly status: number
  readonly code: string
  readonly detail: string | RegExp
}

function invalid(name: string, body: string | Uint8Array, detail: string | RegExp, headers = {}): Refusal {
  return { name, body, headers, status: 400, code: 'INVALID', detail }
}

const deep = `${'['.repeat(10_000)}${']'.repeat(10_000)}`
const known = 'Known: topic, type, key, namespace, filterKeys, payload.'
const refusals: Refusal[] = [
  invalid('is not JSON', '{"topic":', /^body is not JSON: /),
  invalid('is a word', 'NaN', /^body is not JSON: /),
  invalid('is empty', '', /^body is not JSON: /),
  invalid('is two values', '{"topic":"T","type":"t"}{"topic":"T","type":"t"}', /^body is not JSON: /),
  invalid('is NDJSON without saying so', '{"topic":"T","type":"t"}\n{"topic":"T","type":"t"}', /^body is not JSON: /),
  invalid('is a number', '5', 'body must be an event, an array of events or {"index", "events"}, got 5.'),
  invalid('is null', 'null', 'body must be an event, an array of events or {"index", "events"}, got null.'),
  invalid('is a string', '"x"', 'body must be an event, an array of events or {"index", "events"}, got "x".'),
  invalid('holds what is no event', '[{"topic":"T","type":"t"},5]', 'body[1] must be an event, got 5.'),
  invalid('holds an array in an array', '[[{"topic":"T","type":"t"}]]', 'body[0] must be an event, got an array of 1.'),
  invalid('has events that are no array', '{"events":{}}', 'body.events must be an array, got an object.'),
  invalid(
    'has an unknown field beside events',
    '{"events":[],"indx":1}',
    'body has the unknown field "indx". Known: index, id, events.',
  ),
  invalid(
    'has an event and events',
    '{"topic":"T","events":[]}',
    'body has the unknown field "topic". Known: index, id, events.',
  ),
  invalid('has an unknown field', '{"topic":"T","type":"t","Key":"x"}', `event has the unknown field "Key". ${known}`),
  invalid(
    'has `__proto__` as a field',
    '{"topic":"T","type":"t","__proto__":{"key":"x"}}',
    `event has the unknown field "__proto__". ${known}`,
  ),
  invalid(
    'has `__proto__` beside events',
    '{"events":[],"__proto__":{"index":1}}',
    'body has the unknown field "__proto__". Known: index, id, events.',
  ),
  invalid(
    'has only `__proto__`',
    '{"__proto__":{"topic":"T","type":"t"}}',
    /^event(\.topic| has the unknown field "__proto__")/,
  ),
  invalid('has a field twice', '{"topic":"T","type":"t","topic":"U"}', 'body has the field "topic" twice.'),
  invalid(
    'has a field twice, once escaped',
    '[{"topic":"T","type":"t","\\u0074opic":"U"}]',
    'body[0] has the field "topic" twice.',
  ),
  invalid(
    'has two payloads',
    '{"topic":"T","type":"t","payload":1,"payload":2}',
    'body has the field "payload" twice.',
  ),
  invalid(
    'has events twice',
    '{"events":[],"events":[{"topic":"T","type":"t"}]}',
    'body has the field "events" twice.',
  ),
  invalid('has no topic', '{"type":"t"}', 'event.topic must be a non-empty string, got undefined.'),
  invalid('has an empty topic', '{"topic":"","type":"t"}', 'event.topic must be a non-empty string, got "".'),
  invalid('has no type', '{"topic":"T"}', 'event.type must be a non-empty string, got undefined.'),
  invalid(
    'has a topic that is no string',
    '{"topic":["T"],"type":"t"}',
    'event.topic must be a string, got an array of 1.',
  ),
  invalid(
    'has a null key',
    '[{"topic":"T","type":"t"},{"topic":"T","type":"t","key":5}]',
    'events[1].key must be a string, got 5.',
  ),
  invalid('has a topic with a colon', '{"topic":"a:b","type":"t"}', /^event\.topic must not be "\*" or hold ":"/),
  invalid('has the topic *', '{"topic":"*","type":"t"}', /^event\.topic must not be "\*" or hold ":"/),
  invalid(
    'has a topic that is too long',
    `{"topic":"${'x'.repeat(1025)}","type":"t"}`,
    'event.topic must have at most 1024 UTF-16 units, got 1025.',
  ),
  invalid(
    'has filter keys that are no array',
    '{"topic":"T","type":"t","filterKeys":"a"}',
    'event.filterKeys must be an array of at most 256 strings, got "a".',
  ),
  invalid(
    'has too many filter keys',
    JSON.stringify({ ...event, filterKeys: Array(257).fill('a') }),
    'event.filterKeys must be an array of at most 256 strings, got an array of 257.',
  ),
  invalid(
    'has a payload nested 10,000 deep',
    `{"topic":"T","type":"t","payload":${deep}}`,
    'event.payload must nest at most 64 levels deep.',
  ),
  invalid('is nested 10,000 deep', deep, 'body[0] must be an event, got an array of 1.'),
  invalid(
    'has a field nested 10,000 deep',
    `{"topic":${deep},"type":"t"}`,
    'event.topic must be a string, got an array of 1.',
  ),
  invalid(
    'has an index of 0',
    '{"index":0,"events":[{"topic":"T","type":"t"}]}',
    /^index must be an integer from 1 to 9007199254740991, got 0\.$/,
  ),
  invalid('has a null index', '{"index":null,"events":[{"topic":"T","type":"t"}]}', /^index must be an integer/),
  invalid(
    'has an index that is a string',
    '{"index":"5","events":[{"topic":"T","type":"t"}]}',
    /^index must be an integer/,
  ),
  invalid(
    'has an index with a fraction',
    '{"index":5.5,"events":[{"topic":"T","type":"t"}]}',
    /^index must be an integer/,
  ),
  invalid(
    'has an index above 2^53-1',
    '{"index":9007199254740992,"events":[{"topic":"T","type":"t"}]}',
    /^index must be an integer/,
  ),
  invalid('has an index of 1e400', '{"index":1e400,"events":[{"topic":"T","type":"t"}]}', /^index must be an integer/),
  invalid('has a wrong index and no events', '{"index":"x","events":[]}', /index must be an integer/),
  invalid(
    'is cut inside a character',
    Buffer.from('{"topic":"T","type":"é'.slice(0, -1)).subarray(0, -1),
    /^body is not JSON|^The body must be UTF-8/,
  ),
  invalid(
    'has bytes that are no UTF-8',
    Buffer.from('{"topic":"T","type":"\xff"}', 'latin1'),
    'The body must be UTF-8.',
  ),
  invalid(
    'has an encoded surrogate',
    Buffer.from('{"topic":"T","type":"t","payload":"\xed\xa0\x80"}', 'latin1'),
    'The body must be UTF-8.',
  ),
  invalid(
    'has an overlong NUL',
    Buffer.from('{"topic":"T","type":"t","payload":"\xc0\x80"}', 'latin1'),
    'The body must be UTF-8.',
  ),
  invalid(
    'ends inside a character',
    Buffer.from('{"topic":"T","type":"t"}\xe2\x80', 'latin1'),
    'The body must be UTF-8.',
  ),
  invalid('is UTF-16', Buffer.from(JSON.stringify(event), 'utf16le'), /^body is not JSON: /),
  invalid('has a byte order mark inside', '[\ufeff{"topic":"T","type":"t"}]', /^body is not JSON: /),
  invalid('has a raw line break in a string', '{"topic":"T","type":"t","payload":"a\nb"}', /^body is not JSON: /),
  invalid('has a raw NUL in a string', '{"topic":"T","type":"t","payload":"a\u0000b"}', /^body is not JSON: /),
  invalid(
    'has a third line that is not JSON',
    `${JSON.stringify(event)}\n${JSON.stringify(event)}\n{"topic":\n${JSON.stringify(event)}\n`,
    /^line 3 is not JSON: /,
    ndjson,
  ),
  invalid(
    'has a third line that is no event',
    `${JSON.stringify(event)}\n${JSON.stringify(event)}\n{"topic":"T","type":""}\n`,
    /type must be a non-empty string/,
    ndjson,
  ),
  {
    name: 'is a gzip',
    body: gzipSync(JSON.stringify(event)),
    headers: { 'content-encoding': 'gzip' },
    status: 415,
    code: 'UNSUPPORTED_TYPE',
    detail: 'Content-Encoding must be identity, got "gzip".',
  },
  {
    name: 'is a gzip bomb',
    body: gzipSync(Buffer.alloc(50_000_000)),
    headers: { 'content-encoding': 'gzip, gzip' },
    status: 415,
    code: 'UNSUPPORTED_TYPE',
    detail: 'Content-Encoding must be identity, got "gzip, gzip".',
  },
  ...[
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/jsonx',
    '',
  ].map((type) => ({
    name: `is ${type || 'of an empty type'}`,
    body: JSON.stringify(event),
    headers: { 'content-type': type },
    status: 415,
    code: 'UNSUPPORTED_TYPE',
    detail: /^Content-Type must be application\/json or application\/x-ndjson, got /,
  })),
  {
    name: 'is too large',
    body: JSON.stringify({ ...event, payload: 'x'.repeat(2 ** 20) }),
    status: 413,
    code: 'TOO_LARGE',
    detail: 'The body has more than 1048576 bytes (maxBody). Nothing was stored.',
  },
  {
    name: 'has an index that does not grow',
    body: '{"index":5,"events":[{"topic":"T","type":"t"}]}',
    status: 409,
    code: 'INDEX_ORDER',
    detail: "Index 5 is not above the log's last index 5. Publish with a larger index or omit it.",
  },
  {
    name: 'has an index that falls',
    body: '{"index":4,"events":[{"topic":"T","type":"t"}]}',
    status: 409,
    code: 'INDEX_ORDER',
    detail: /^Index 4 is not above/,
  },
  {
    name: 'has a third line whose index falls',
    body: `${JSON.stringify(event)}\n{"index":9,"events":[${JSON.stringify(event)}]}\n{"index":9,"events":[${JSON.stringify(event)}]}`,
    headers: ndjson,
    status: 409,
    code: 'INDEX_ORDER',
    detail: /^Index 9 is not above/,
  },
]
const forbidden = ['\\u0000', '\\n', '\\r', '\\u001b', '\\u007f', '\\u0085', '\\ud800', '\\udc00', 'a\\ud800b']
for (const field of ['topic', 'type', 'key', 'namespace', 'filterKeys']) {
  for (const unit of forbidden) {
    const value = field === 'filterKeys' ? `["${unit}"]` : `"${unit}"`
    const { [field as 'topic']: _, ...rest } = event
    const body = `${JSON.stringify(rest).slice(0, -1)},"${field}":${value}}`
    refusals.push(
      invalid(
        `has ${unit} in ${field}`,
        body,
        new RegExp(`^event\\.${field}(\\[0\\])? must hold no control characters or lone surrogates, got "`),
      ),
    )
  }
}

for (const { name, body, headers, status, code, detail } of refusals) {
  test(`a body that ${name} is refused with ${status}, and nothing of it is stored`, async (t) => {
    const site = await serve(t)
    await post(site, { index: 5, events: [event] })
    const before = keptBy(site.broker)
    const prototype = Object.getOwnPropertyNames(Object.prototype)
    const answer = await post(site, body, headers)
    assertProblem(answer, status, code, detail)
    assert.deepEqual(keptBy(site.broker), before)
    assert.deepEqual(Object.getOwnPropertyNames(Object.prototype), prototype)
    assert.deepEqual(site.errors, [])
    const next = await post(site, event)
    assert.deepEqual([next.status, next.json.index], [200, 6])
    assert.deepEqual(await stored(t, site), [line(site, 5, plain), line(site, 6, plain)])
  })
}

function assertProblem(answer: Answer, status: number, code: string, detail: string | RegExp): void {
  assert.equal(answer.status, status, answer.text)
  assert.equal(answer.headers['content-type'], 'application/problem+json')
  const problem = answer.json
  assert.deepEqual([problem.type, problem.status, problem.code], ['about:blank', status, code])
  if (typeof detail === 'string') assert.equal(problem.detail, detail)
  else assert.match(problem.detail as string, detail)
  assert.ok((problem.detail as string).length < 300, 'a stranger does not choose its length')
}

function problemOf(response: RawResponse): { status: number; code: string } {
  return JSON.parse(response.body) as { status: number; code: string }
}

test('without a content type a body is refused', async (t) => {
  const site = await serve(t)
  const client = await RawClient.open(t, site.port, posting(['Content-Length: 2', 'Connection: close'], '[]'))
  assert.deepEqual(problemOf(await client.toEnd()).status, 415)
})

test('a body is stored exactly up to maxBody bytes', async (t) => {
  const site = await serve(t, { handler: { maxBody: 100 } })
  const empty = JSON.stringify({ ...event, payload: '' })
  const sized = (bytes: number) => JSON.stringify({ ...event, payload: 'x'.repeat(bytes - empty.length) })
  assert.equal((await post(site, sized(100))).status, 200)
  assert.equal((await post(site, sized(101))).status, 413)
  const chunked = (body: string) => post(site, body, { 'transfer-encoding': 'chunked' })
  assert.equal((await chunked(sized(100))).status, 200)
  assert.equal((await chunked(sized(101))).status, 413)
})

test('a body whose length is announced as too large is refused before any of it is sent', async (t) => {
  const site = await serve(t)
  const head = ['Content-Type: application/json', 'Content-Length: 1048577']
  const client = await RawClient.open(t, site.port, posting(head))
  const response = await client.bodyWith('}')
  assert.equal(problemOf(response).code, 'TOO_LARGE')
  assert.equal(response.header('connection'), 'close')
})

test('a client that waits for 100-continue with a body that is too large is refused', async (t) => {
  const site = await serve(t)
  const head = ['Content-Type: application/json', 'Content-Length: 5000000', 'Expect: 100-continue']
  const client = await RawClient.open(t, site.port, posting(head))
  await until(() => client.text.includes('TOO_LARGE'), 'the refusal')
  const text = client.text.replace(/^HTTP\/1\.1 100 Continue\r\n\r\n/, '')
  assert.match(text, /^HTTP\/1\.1 413 /)
})

test('a client that waits for 100-continue with a body that fits is told to go on', async (t) => {
  const site = await serve(t)
  const body = JSON.stringify(event)
  const head = [
    'Content-Type: application/json',
    `Content-Length: ${body.length}`,
    'Expect: 100-continue',
    'Connection: close',
  ]
  const client = await RawClient.open(t, site.port, posting(head))
  await until(
    () => client.text === 'HTTP/1.1 100 Continue\r\n\r\n',
    () => `100 Continue, got ${client.text}`,
  )
  client.send(body)
  await until(() => client.closed, 'the answer')
  assert.match(client.text, /HTTP\/1\.1 200 OK/)
})

test('a chunked body without end is refused as soon as it is too large, whoever goes on sending', async (t) => {
  const site = await serve(t)
  const client = await RawClient.open(
    t,
    site.port,
    posting(['Content-Type: application/json', 'Transfer-Encoding: chunked']),
  )
  const chunk = Buffer.from(`10000\r\n${'x'.repeat(0x10000)}\r\n`)
  let sent = 0
  await until(() => {
    if (!client.closed && !client.response && client.socket.writableLength < 2 ** 22) {
      client.socket.write(chunk)
      sent += 0x10000
    }
    return client.response !== undefined || client.closed
  }, 'the refusal')
  assert.ok(sent < 2 ** 25, `refused after ${sent} bytes`)
  assert.ok(client.response, `no answer: ${client.error?.message}`)
  assert.match(client.response.statusLine, /^HTTP\/1\.1 413 /)
  await until(() => client.closed, 'the connection is closed')
  assert.equal(site.broker.status.retained, 0)
  assert.equal((await ask(site, '/healthz')).status, 200)
})

test('a body of 100 MB that is announced is not read into memory', async (t) => {
  const site = await serve(t)
  const size = 100 * 2 ** 20
  const client = await RawClient.open(
    t,
    site.port,
    posting(['Content-Type: application/json', `Content-Length: ${size}`]),
  )
  const response = await client.bodyWith('}')
  assert.match(response.statusLine, /^HTTP\/1\.1 413 /)
  assert.ok((site.exchanges[0]?.request.socket.bytesRead ?? 0) < 2 ** 20)
})

for (const [name, head, part] of [
  ['of known length', 'Content-Length: 100', '{"topic":"T","type":"t"'],
  ['that is whole JSON already', 'Content-Length: 100', JSON.stringify(event)],
  ['in chunks', 'Transfer-Encoding: chunked', `26\r\n${JSON.stringify(event)}\r\n`],
] as const) {
  test(`a body ${name} that is cut off half way stores nothing and is no failure of the server`, async (t) => {
    const site = await serve(t)
    for (const leave of ['destroy', 'resetAndDestroy', 'end'] as const) {
      const client = await RawClient.open(t, site.port, posting(['Content-Type: application/json', head], part))
      await until(() => (site.exchanges.at(-1)?.request.socket.bytesRead ?? 0) > part.length, 'the part has come')
      const exchange = site.exchanges.at(-1)
      client.socket[leave]()
      await until(() => exchange?.request.socket.destroyed === true, `the connection ends after ${leave}`)
      site.exchanges.length = 0
    }
    assert.equal((await ask(site, '/healthz')).status, 200)
    assert.equal(site.broker.status.retained, 0)
    assert.deepEqual(site.errors, [])
  })
}

test('requests that two parsers could read in two ways are refused by the server before us', async (t) => {
  const site = await serve(t)
  const body = JSON.stringify(event)
  const json = 'Content-Type: application/json'
  for (const head of [
    [json, `Content-Length: ${body.length}`, 'Transfer-Encoding: chunked'],
    [json, `Content-Length: ${body.length}`, 'Content-Length: 5'],
    [json, `Content-Length: ${body.length}, ${body.length}`],
    [json, 'Content-Length: -5'],
    [json, 'Content-Length: 0x26'],
    [json, 'Transfer-Encoding: chunked, identity'],
  ]) {
    const client = await RawClient.open(t, site.port, posting(head, body))
    const response = await client.toEnd()
    assert.match(response.statusLine, /^HTTP\/1\.1 400 /, head.join(' | '))
  }
  assert.equal(site.broker.status.retained, 0)
})

test('a publish request that follows another on its connection is served in order', async (t) => {
  const site = await serve(t)
  const body = JSON.stringify(event)
  const one = (extra: string[] = []) =>
    posting(['Content-Type: application/json', `Content-Length: ${body.length}`, ...extra], body)
  const client = await RawClient.open(t, site.port, one() + one() + one(['Connection: close']))
  await until(() => client.closed, 'three answers')
  assert.deepEqual(
    [...client.text.matchAll(/"index":(\d)/g)].map(([, index]) => index),
    ['1', '2', '3'],
  )
})

test('a body that comes byte by byte, cut inside characters, is read like any other', async (t) => {
  const site = await serve(t)
  const body = Buffer.from('{"topic":"T","type":"é𝄞","payload":"\u2028𝄞"}')
  const head = ['Content-Type: application/json', `Content-Length: ${body.length}`, 'Connection: close']
  const client = await RawClient.open(t, site.port, posting(head))
  for (const byte of body) {
    const before = site.exchanges[0]?.request.socket.bytesRead ?? 0
    client.send(Buffer.of(byte))
    await until(() => (site.exchanges[0]?.request.socket.bytesRead ?? 0) > before, 'the byte has come')
  }
  assert.match((await client.toEnd()).statusLine, / 200 /)
  assert.deepEqual(await stored(t, site), [
    line(site, 1, '{"topic":"T","type":"é𝄞","key":"","namespace":"","filterKeys":[],"payload":"\u2028𝄞"}'),
  ])
})

test('after the broker has closed a publisher is told to come back', async (t) => {
  const site = await serve(t)
  await site.broker.close()
  const answer = await post(site, event)
  assert.deepEqual([answer.status, answer.json.code, answer.json.retryable], [503, 'SHUTDOWN', true])
  assert.deepEqual((await ask(site, '/v1/events')).status, 503)
})

test('a failing log is told to the operator, and to the publisher without the cause', async (t) => {
  const log = memoryLog()
  log.append = () => Promise.reject(new Error('disk /dev/secret is gone'))
  const broker = createBroker({ log })
  const site = await serve(t, { broker })
  const answer = await post(site, event)
  assert.deepEqual([answer.status, answer.json.code], [503, 'LOG_FAILED'])
  assert.ok(!answer.text.includes('secret'))
  assert.equal(site.errors.length, 1)
  await broker.close()
})

test('a request that is repeated with its key stores nothing more and gets the first answer’s index', async (t) => {
  const site = await serve(t)
  const first = await post(site, event, { 'idempotency-key': 'order-1' })
  await post(site, event)
  for (const key of ['order-1', '"order-1"']) {
    const again = await post(site, event, { 'idempotency-key': key })
    assert.deepEqual(again.json, { ...first.json, duplicate: true })
  }
  assert.deepEqual((await post(site, { id: 'order-1', events: [event] })).json.duplicate, true)
  assert.equal(site.broker.status.newestIndex, 2)
})

test('a key with other events, or two that differ, is refused, and nothing is stored', async (t) => {
  const site = await serve(t)
  await post(site, event, { 'idempotency-key': 'a' })
  const other = await post(site, [event, event], { 'idempotency-key': 'a' })
  assert.deepEqual([other.status, other.json.code], [409, 'KEY_REUSED'])
  const two = await post(site, { id: 'b', events: [event] }, { 'idempotency-key': 'c' })
  assert.deepEqual([two.status, two.json.detail], [400, 'id must be that of the header Idempotency-Key, "c", got "b".'])
  const long = await post(site, event, { 'idempotency-key': 'x'.repeat(257) })
  assert.equal(long.status, 400)
  assert.equal(site.broker.status.newestIndex, 1)
})

test('a publish that expects another newest index is refused with the true one', async (t) => {
  const site = await serve(t)
  const body = JSON.stringify(event)
  const expecting = (query: string) =>
    ask(site, `/v1/events?${query}`, { method: 'POST', body, headers: { 'content-type': 'application/json' } })
  assert.equal((await expecting('expected=0')).json.index, 1)
  const refused = await expecting('expected=0')
  assert.deepEqual([refused.status, refused.json.code, refused.json.index], [409, 'INDEX_MISMATCH', 1])
  assert.equal((await expecting('expected=1')).status, 200)
  for (const query of ['expected=-1', 'expected=x', 'expected=1&expected=2', 'expect=1']) {
    assert.equal((await expecting(query)).status, 400, query)
  }
  assert.equal(site.broker.status.newestIndex, 2)
})
