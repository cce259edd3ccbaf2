import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'
import { createClient } from 'spillway/client'
import { isLoopback } from '../src/loopback.ts'
import { createServer } from '../src/server.ts'

test('a server in this process publishes, shows its page and answers as the library does', async (t) => {
  const server = createServer()
  const url = await server.listen()
  t.after(() => server.close())
  await server.broker.publish({ topic: 'Order', type: 'OrderPlaced' })
  const { newest } = (await (await fetch(`${url}/v1/status`)).json()) as { newest: number }
  assert.equal(newest, 1)
  assert.equal(await (await fetch(`${url}/healthz`)).text(), 'ok\n')
  assert.equal((await fetch(`${url}/nothing`)).status, 404)
})

test('the files of the page come with headers that let nothing else run', async (t) => {
  const server = createServer()
  const url = await server.listen()
  t.after(() => server.close())
  for (const [path, type] of [
    ['/', 'text/html'],
    ['/?topic=x', 'text/html'],
    ['/page.js', 'text/javascript'],
    ['/page.css', 'text/css'],
  ]) {
    const response = await fetch(url + path)
    assert.equal(response.status, 200)
    assert.match(response.headers.get('content-type') ?? '', new RegExp(`^${type}`))
    assert.equal(
      response.headers.get('content-security-policy'),
      "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    )
    assert.equal(response.headers.get('x-content-type-options'), 'nosniff')
    assert.equal(response.headers.get('cache-control'), 'no-store')
    assert.ok((await response.text()).length > 0)
  }
  const head = await fetch(url, { method: 'HEAD' })
  assert.ok(Number(head.headers.get('content-length')) > 0)
  assert.equal((await fetch(url, { method: 'POST', body: 'x' })).status, 405)
  for (const path of ['/page', '/../package.json', '/page.js/', '/%2e%2e/package.json']) {
    assert.equal((await fetch(url + path)).status, 404, path)
  }
})

test('closing does not wait for connections that are idle, or become so', async () => {
  const server = createServer()
  const url = new URL(await server.listen())
  const idle = connect(Number(url.port), url.hostname)
  idle.write('GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n')
  const busy = connect(Number(url.port), url.hostname)
  busy.write(
    'POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n[',
  )
  await Promise.all([once(idle, 'data'), once(busy, 'data')])
  const closed = server.close({ grace: 60_000 })
  // The broker is closed by now, and the request that is still coming gets an answer that says so.
  await once(idle, 'close')
  busy.write(']')
  const [answer] = await once(busy, 'data')
  assert.match(String(answer), /^HTTP\/1\.1 503 .*SHUTDOWN/s)
  await closed
  await server.close()
})

test('a connection that does not end is cut after the grace', async () => {
  const server = createServer()
  const url = new URL(await server.listen())
  const socket = connect(Number(url.port), url.hostname)
  socket.on('error', () => {})
  socket.write('GET /v1/events HTTP/1.1\r\nHos')
  await once(socket, 'connect')
  const cut = new Promise((resolve) => socket.on('close', resolve))
  await server.close({ grace: 50 })
  await cut
})

test('loopback addresses are known', () => {
  for (const host of ['127.0.0.1', '127.1.2.3', '::1', 'localhost']) assert.ok(isLoopback(host), host)
  for (const host of ['0.0.0.0', '::', '10.0.0.1', '127.evil.example', '']) assert.ok(!isLoopback(host), host)
})

test('a client follows over a WebSocket, is told when the server ends, and the server does not wait for it', async (t) => {
  const server = createServer()
  const url = await server.listen()
  t.after(() => server.close())
  const errors: string[] = []
  const client = createClient({ url, transport: 'websocket' })
  const subscription = client.subscribe({
    onStatus: (status) => {
      if (status.state === 'waiting') errors.push(status.error.code)
    },
  })
  t.after(() => subscription.close())
  await subscription.ready
  await client.publish({ topic: 'Order', type: 'OrderPlaced', key: 'A1' })
  assert.equal((await subscription.next()).events[0]?.key, 'A1')
  subscription.next().catch(() => {})
  const started = performance.now()
  await server.close({ grace: 60_000 })
  assert.ok(performance.now() - started < 30_000)
  while (errors.length === 0) await new Promise((resolve) => setImmediate(resolve))
  assert.equal(errors[0], 'SHUTDOWN')
})

test('pages of origins that are named may use the server', async (t) => {
  const server = createServer({ cors: ['https://app.example'] })
  const url = await server.listen()
  t.after(() => server.close())
  const answer = await fetch(`${url}/v1/status`, { headers: { origin: 'https://app.example' } })
  assert.equal(answer.headers.get('access-control-allow-origin'), 'https://app.example')
})
