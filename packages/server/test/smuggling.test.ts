// Requests of which two parsers may think differently: [RFC 9112, 11.2]; threats S16 and S7.
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { after, before, test } from 'node:test'
import { createServer, type SpillwayServer } from '../src/server.ts'

let server: SpillwayServer
let url: string
before(async () => {
  server = createServer()
  url = await server.listen()
})
after(() => server.close({ grace: 0 }))

/** All that the server says to `bytes` until it closes, or until `isEnough`. */
function exchange(bytes: string, isEnough: (text: string) => boolean = () => false): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(Number(new URL(url).port), '127.0.0.1')
    let text = ''
    const end = () => {
      socket.destroy()
      resolve(text)
    }
    socket.on('data', (data) => {
      text += data.toString('latin1')
      if (isEnough(text)) end()
    })
    socket.on('error', () => {})
    socket.on('close', end)
    socket.write(bytes)
  })
}

const event = '{"topic":"T","type":"t"}'
const post = (...lines: string[]) =>
  ['POST /v1/events HTTP/1.1', 'Host: localhost', 'Content-Type: application/json', ...lines].join('\r\n')
const chunked = `${event.length.toString(16)}\r\n${event}\r\n0\r\n\r\n`

for (const [what, request] of [
  ['both lengths', `${post('Content-Length: 4', 'Transfer-Encoding: chunked')}\r\n\r\n${chunked}`],
  ['both lengths, the other way round', `${post('Transfer-Encoding: chunked', 'Content-Length: 4')}\r\n\r\n${chunked}`],
  ['two lengths', `${post(`Content-Length: ${event.length}`, 'Content-Length: 4')}\r\n\r\n${event}`],
  ['a length with a sign', `${post(`Content-Length: +${event.length}`)}\r\n\r\n${event}`],
  ['a list of lengths', `${post(`Content-Length: ${event.length}, ${event.length}`)}\r\n\r\n${event}`],
  ['a coding behind chunked', `${post('Transfer-Encoding: chunked, identity')}\r\n\r\n${chunked}`],
  ['chunked twice', `${post('Transfer-Encoding: chunked', 'Transfer-Encoding: identity')}\r\n\r\n${chunked}`],
  ['a folded header', `${post('Transfer-Encoding:', ' chunked', `Content-Length: ${event.length}`)}\r\n\r\n${event}`],
  ['a space before the colon', `${post('Transfer-Encoding : chunked')}\r\n\r\n${chunked}`],
  ['a NUL in a header', `${post('X-A: a\0b', `Content-Length: ${event.length}`)}\r\n\r\n${event}`],
  ['a chunk size that is none', `${post('Transfer-Encoding: chunked')}\r\n\r\n0x18\r\n${event}\r\n0\r\n\r\n`],
  ['a bare line feed', `${post(`Content-Length: ${event.length}`).replaceAll('\r\n', '\n')}\n\n${event}`],
] as const) {
  test(`a request with ${what} is refused with 400 and the end of its connection, and nothing is stored`, async () => {
    const { newestIndex } = server.broker.status
    assert.match(await exchange(request), /^HTTP\/1\.1 400 /)
    assert.equal(server.broker.status.newestIndex, newestIndex)
  })
}

test('what is sent behind a stream on its connection is not stored', async () => {
  const { newestIndex } = server.broker.status
  const publish = `${post(`Content-Length: ${event.length}`)}\r\n\r\n${event}`
  const text = await exchange(`GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n${publish}`, (text) =>
    text.includes('id: '),
  )
  assert.match(text, /^HTTP\/1\.1 200 /)
  assert.equal((await fetch(`${url}/healthz`)).status, 200)
  assert.equal(server.broker.status.newestIndex, newestIndex)
})

test('no page can publish without being asked for first', async () => {
  const { newestIndex } = server.broker.status
  for (const type of [
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'text/plain; application/json',
    '',
  ]) {
    for (const origin of ['null', 'https://evil.test', 'http://localhost.evil.test']) {
      const response = await fetch(`${url}/v1/events`, {
        method: 'POST',
        headers: { ...(type !== '' && { 'content-type': type }), origin },
        body: new Uint8Array(Buffer.from(event)),
      })
      assert.equal(response.status, 415, type)
      assert.equal(response.headers.get('access-control-allow-origin'), null)
    }
  }
  const { status } = await fetch(`${url}/v1/events?publish=${encodeURIComponent(event)}`)
  assert.equal(status, 400)
  assert.equal(server.broker.status.newestIndex, newestIndex)
})
