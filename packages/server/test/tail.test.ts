import assert from 'node:assert/strict'
import { test } from 'node:test'
import { event, gist, publish } from './support/events.ts'
import { batch, fakeStream, open, stream } from './support/fake-stream.ts'
import { Program, run, serve } from './support/program.ts'

test('tail prints each batch as it came, a line each, and ends after --count of them', async (t) => {
  const { url } = await serve(t)
  const payload = { text: 'é\u2028', nested: [1, null] }
  await publish(url, event('1'), [event('2'), { ...event('3'), payload }])
  const { code, stdout, stderr } = await run(t, ['tail', '--url', url, '--from', 'earliest', '--count', '2'])
  assert.equal(code, 0)
  assert.equal(stderr, '')
  const [first = '', second = '', ...more] = stdout.split('\n')
  assert.deepEqual(more, [''])
  assert.deepEqual([gist(first), gist(second)], ['1', '2 3'])
  assert.deepEqual(JSON.parse(second).events[1].payload, payload)
})

test('topics, keys, namespaces and a cursor choose what is read', async (t) => {
  const { url } = await serve(t)
  await publish(
    url,
    event('1', 'A'),
    event('2', 'A'),
    event('1', 'B'),
    { ...event('n', 'C'), namespace: 'n' },
    { ...event('m', 'C'), namespace: 'm' },
  )
  const read = async (count: number, ...args: string[]) => {
    const { stdout } = await run(t, ['tail', '--url', url, '--count', String(count), ...args])
    return stdout.trim().split('\n')
  }
  const chosen = await read(2, '--from', 'earliest', '--topic', 'A:2', '--topic', 'B')
  assert.deepEqual(chosen.map(gist), ['2', '1'])
  const cursor = JSON.parse(chosen[0] ?? '').cursor
  assert.deepEqual((await read(1, '--from', cursor)).map(gist), ['1'])
  assert.deepEqual((await read(1, '--from', 'earliest', '--topic', 'C', '--namespace', 'm')).map(gist), ['m'])
})

test('--pretty shows one line an event, losses included, and nothing that steers the terminal', async (t) => {
  const evil = { topic: 'T', type: 't', key: 'k\u202e', namespace: 'n', filterKeys: [], payload: '\u009b2J' }
  const { url } = await fakeStream(t, (response) =>
    stream(
      response,
      open('e:0'),
      { gap: { after: 1, before: 5, reason: 'lag', cursor: 'e:4' } },
      '{"index":5,"cursor":"e:5","events":[{"topic":"T","type":"t","key":"k","namespace":"","filterKeys":[],"payload":{"n":1600000000000000001}}]}\n',
      { reset: { after: 5, before: 1, reason: 'epoch', cursor: 'f:0' } },
      { index: 6, cursor: 'f:6', events: [evil, evil] },
    ),
  )
  const { stdout } = await run(t, ['tail', '--url', url, '--pretty', '--count', '2'])
  assert.deepEqual(stdout.replace(/^[0-9:]{8} +/gm, '').split('\n'), [
    '--- gap: batches after 1 and before 5 may be missing (lag) ---',
    '5 T t k {"n":1600000000000000001}',
    '--- reset: the server began a new history; what came after 5 of the old one may be missing, this one goes on with 1 ---',
    '6 T t n k\\u202e "\\u009b2J"',
    '6 T t n k\\u202e "\\u009b2J"',
    '',
  ])
})

test('tail goes on after the server was killed and started again, without a batch twice', async (t) => {
  const { server, url } = await serve(t)
  const tail = new Program(t, ['tail', '--url', url, '--from', 'earliest', '--json'])
  await publish(url, event('1'), event('2'))
  await tail.stdout.first(2)
  server.kill('SIGKILL')
  await server.ended
  await tail.stderr.line(/trying again/)
  await serve(t, '--port', new URL(url).port)
  await publish(url, event('3'), event('4'))
  // A server that keeps its events in memory begins a new history: that is told, and nothing is left out of it.
  const lines = await tail.stdout.first(5)
  assert.deepEqual(lines.map(gist), ['1', '2', 'reset', '3', '4'])
  await tail.stderr.line(/connected again/)
  tail.kill('SIGINT')
  assert.equal(await tail.ended, 0)
  assert.equal(tail.stdout.lines.length, 5)
})

test('a half line is thrown away and read again', async (t) => {
  const { url, queries } = await fakeStream(
    t,
    (response) => {
      stream(response, open('e:0'), batch(1), JSON.stringify(batch(2)).slice(0, 30))
      setImmediate(() => response.destroy())
    },
    (response) => stream(response, open('e:1'), batch(2)),
  )
  const { code, stdout } = await run(t, ['tail', '--url', url, '--topic', 'T', '--count', '2'])
  assert.equal(code, 0)
  assert.deepEqual(stdout.trim().split('\n').map(gist), ['1', '2'])
  assert.deepEqual(queries.map(String), ['from=latest&topic=T', 'from=e%3A1&topic=T'])
})

test('what was passed over counts as read, and what comes with open only if nothing was read before', async (t) => {
  const { url, queries } = await fakeStream(
    t,
    (response) => stream(response, open('e:3')).end(),
    (response) => stream(response, open('e:9'), { progress: { cursor: 'e:9' } }).end(),
    (response) => stream(response, open('e:20')).end(),
    (response) => stream(response, open('e:9'), { gap: { after: 9, before: 20, reason: 'lag', cursor: 'e:19' } }).end(),
    (response) => stream(response, open('e:19'), batch(20)),
  )
  const { stdout } = await run(t, ['tail', '--url', url, '--count', '1'])
  assert.deepEqual(stdout.trim().split('\n').map(gist), ['gap', '20'])
  assert.deepEqual(
    queries.map((query) => query.get('from')),
    ['latest', 'e:3', 'e:9', 'e:9', 'e:19'],
  )
})

test('a reader that is told to come back does, when it is told to', async (t) => {
  const closed = (retry: number | null) => ({ closed: { code: 'SHUTDOWN', message: 'Bye.', retry, cursor: 'e:1' } })
  const { url, queries } = await fakeStream(
    t,
    (response) => stream(response, open('e:1'), closed(10)).end(),
    (response) => stream(response, open('e:1'), closed(null)).end(),
  )
  const { code, stdout, stderr } = await run(t, ['tail', '--url', url])
  assert.equal(code, 1)
  assert.equal(stdout, '')
  assert.match(stderr, /SHUTDOWN: Bye\.\); trying again in 0\.0 s\n/)
  assert.match(stderr, /spillway tail: SHUTDOWN: Bye\.\n$/)
  assert.equal(queries.length, 2)
})

test('a refusal ends it with the message of the server; a failure of a server that was there does not', async (t) => {
  const { url } = await fakeStream(
    t,
    (response) => stream(response, open('e:1')).end(),
    (response) => response.writeHead(503).end('upstream'),
    (response) =>
      response
        .writeHead(403, { 'content-type': 'application/problem+json' })
        .end(JSON.stringify({ detail: 'Permission denied' })),
  )
  const { code, stderr } = await run(t, ['tail', '--url', url])
  assert.equal(code, 1)
  assert.match(stderr, /503 Service Unavailable.*trying again/)
  assert.match(stderr, /spillway tail: Permission denied\.\n$/)
})

test('a bad cursor is refused by the server, with 1', async (t) => {
  const { url } = await serve(t)
  const { code, stderr } = await run(t, ['tail', '--url', url, '--from', 'yesterday'])
  assert.equal(code, 1)
  assert.match(stderr, /cursor must be one that this server or broker gave out, got "yesterday"/)
})

test('a server that was never there, or is something else, ends it with 1', async (t) => {
  const { url } = await fakeStream(t, (response) => response.end('hello'))
  const other = await run(t, ['tail', '--url', url])
  assert.equal(other.code, 1)
  assert.match(other.stderr, /does not answer with a stream\. Is it a Spillway server\?/)
  const { server, url: gone } = await serve(t)
  server.kill('SIGKILL')
  await server.ended
  const { code, stderr } = await run(t, ['tail', '--url', gone])
  assert.equal(code, 1)
  assert.match(stderr, /Cannot reach .*connection refused/)
})

test('a reader whose output is closed ends quietly', async (t) => {
  const { url } = await serve(t)
  const tail = new Program(t, ['tail', '--url', url, '--from', 'earliest'])
  await publish(url, event('1'))
  await tail.stdout.first(1)
  tail.child.stdout?.destroy()
  // A closed pipe is noticed by writing to it.
  await publish(url, ...Array.from({ length: 3 }, (_, i) => event(String(i))))
  assert.equal(await tail.ended, 0)
  assert.equal(tail.stderr.text, '')
})
