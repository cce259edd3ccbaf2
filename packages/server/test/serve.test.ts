import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'
import { event, gist, publish } from './support/events.ts'
import { Program, run, serve } from './support/program.ts'

async function textOf(response: Response): Promise<string> {
  return Buffer.from(await response.arrayBuffer()).toString()
}

test('serve says where it listens and how to follow it', async (t) => {
  const { server, url } = await serve(t)
  await server.stdout.first(5)
  assert.match(server.stdout.text, new RegExp(`^Spillway listens on ${url}\n`))
  assert.ok(server.stdout.text.includes(`curl -N '${url}/v1/events?from=earliest'`))
  assert.ok(server.stdout.text.includes(`${url}/\n`))
  assert.match(server.stdout.text, /^ {2}history +in memory, until the server ends$/m)
  assert.equal(server.stderr.text, '')
})

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(`${signal} tells readers that the server goes away, and ends it with 0`, async (t) => {
    const { server, url } = await serve(t)
    const ndjson = await fetch(`${url}/v1/events`, { headers: { accept: 'application/x-ndjson' } })
    const sse = await fetch(`${url}/v1/events`)
    const started = performance.now()
    server.kill(signal)
    const closed = (await textOf(ndjson)).trim().split('\n').at(-1) ?? ''
    assert.equal(gist(closed), 'closed')
    assert.equal(JSON.parse(closed).closed.code, 'SHUTDOWN')
    assert.match(await textOf(sse), /event: closed\n/)
    assert.equal(await server.ended, 0)
    assert.ok(performance.now() - started < 5000)
    assert.match(server.stderr.text, /stopping.*\n.*stopped\n/)
  })
}

test('a server that waits for a connection ends within 5 s, or at once with 1 on a second signal', async (t) => {
  for (const [signals, expected] of [
    [1, 0],
    [2, 1],
  ]) {
    const { server, url } = await serve(t)
    const { hostname, port } = new URL(url)
    const socket = connect(Number(port), hostname)
    socket.on('error', () => {})
    t.after(() => socket.destroy())
    const headers = 'Host: localhost\r\nContent-Length: 9\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n'
    socket.write(`POST /v1/events HTTP/1.1\r\n${headers}\r\n`)
    await once(socket, 'data')
    const started = performance.now()
    server.kill('SIGTERM')
    await server.stderr.line(/stopping/)
    if (signals === 2) server.kill('SIGTERM')
    assert.equal(await server.ended, expected)
    assert.ok(performance.now() - started < (signals === 2 ? 2000 : 5000))
  }
})

test('a port in use is said to be, and ends with 1', async (t) => {
  const { url } = await serve(t)
  const { port } = new URL(url)
  const { code, stdout, stderr } = await run(t, ['serve', '--memory', '--port', port])
  assert.equal(code, 1)
  assert.equal(stdout, '')
  assert.match(stderr, new RegExp(`^spillway serve: Port ${port} of 127\\.0\\.0\\.1 is in use\\..*--port`))
})

test('an address of another machine is refused with 1', async (t) => {
  const { code, stderr } = await run(t, ['serve', '--memory', '--port', '0', '--host', '192.0.2.1'])
  assert.equal(code, 1)
  assert.match(stderr, /--host 192\.0\.2\.1 is not an address of this machine/)
})

test('listening beyond this machine warns that there is no access control', async (t) => {
  const { server } = await serve(t, '--host', '0.0.0.0')
  await server.stderr.line(/warning: Without access control/)
})

test('with --json every line is an object, and the first says where it listens', async (t) => {
  const server = new Program(t, ['serve', '--memory', '--port', '0', '--json', '--host', '0.0.0.0'])
  const [first = '', second = ''] = await server.stdout.first(2)
  const { level, msg, url } = JSON.parse(first)
  assert.deepEqual({ level, msg }, { level: 'info', msg: 'listening' })
  assert.match(url, /^http:\/\/0\.0\.0\.0:[0-9]+$/)
  assert.equal(JSON.parse(second).level, 'warn')
  server.kill('SIGTERM')
  assert.equal(await server.ended, 0)
  assert.deepEqual(server.stdout.lines.map((line) => JSON.parse(line).msg).slice(2), [
    'stopping: readers are told to come back later',
    'stopped',
  ])
  assert.equal(server.stderr.text, '')
})

test('the limits reach the broker and the handler', async (t) => {
  const { url } = await serve(t, '--capacity', '2', '--max-body', '200', '--max-bytes', '1k', '--max-age', '1h')
  await publish(url, event('1'), event('2'), event('3'), event('4'))
  const { oldest } = (await (await fetch(`${url}/v1/status`)).json()) as { oldest: number }
  assert.ok(oldest >= 2)
  await assert.rejects(publish(url, event('x'.repeat(200))), /more than 200 bytes/)
})
