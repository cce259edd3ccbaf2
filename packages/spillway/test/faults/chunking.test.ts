import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { Follower, faces, followRequest } from '../support/follower.ts'
import { type Site, serve, until } from '../support/http.ts'
import { seededRandom } from '../support/random.ts'
import { RawClient } from '../support/raw.ts'

const payload = 'a é 日 😀 \u2028 "quoted" \\ end'
const body = Buffer.from(JSON.stringify({ events: [{ topic: 'T', type: 't', key: 'clé', payload }] }))

/** Sends pieces, each once the server has read the one before: none of them comes together with another. */
async function sendPieces(t: TestContext, site: Site, pieces: readonly Uint8Array[]): Promise<RawClient> {
  const connection = once(site.server, 'connection') as Promise<[Socket]>
  const client = await RawClient.open(t, site.port)
  const [received] = await connection
  let sent = 0
  for (const piece of pieces) {
    client.send(piece)
    sent += piece.length
    while (received.bytesRead < sent && !received.destroyed) await setImmediate()
  }
  return client
}

const bytesOf = (bytes: Uint8Array): Uint8Array[] => Array.from(bytes, (_, at) => bytes.subarray(at, at + 1))

const head = (...more: string[]) =>
  Buffer.from(
    ['POST /v1/events HTTP/1.1', 'Host: localhost', 'Content-Type: application/json', ...more, '', ''].join('\r\n'),
  )

test('N2: a publish of single bytes, headers and body, is what it is in one piece', async (t) => {
  const site = await serve(t)
  const whole = Buffer.concat([head(`Content-Length: ${body.length}`), body])
  const client = await sendPieces(t, site, bytesOf(whole))
  await client.responseWith(({ body: answer }) => answer.includes('"index":1'), 'published')
  const [batch] = await kept(site)
  assert.deepEqual(batch, [payload])
})

test('N2: a publish in chunks of one byte, each in packets of one byte, is what it is in one piece', async (t) => {
  const site = await serve(t)
  const chunks = bytesOf(body).flatMap((byte) => [Buffer.from('1\r\n'), byte, Buffer.from('\r\n')])
  const whole = Buffer.concat([head('Transfer-Encoding: chunked'), ...chunks, Buffer.from('0\r\n\r\n')])
  const client = await sendPieces(t, site, bytesOf(whole))
  await client.responseWith(({ body: answer }) => answer.includes('"index":1'), 'published')
  assert.deepEqual(await kept(site), [[payload]])
})

test('N2: a publish that is split anywhere, also within a character, is what it is in one piece', async (t) => {
  const site = await serve(t)
  const start = head('Transfer-Encoding: chunked')
  const chunk = (bytes: Uint8Array) => [Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')]
  for (let at = 1; at < body.length; at++) {
    const pieces = [body.subarray(0, at), body.subarray(at)].flatMap(chunk)
    const client = await RawClient.open(t, site.port, Buffer.concat([start, ...pieces.slice(0, 3)]))
    await setImmediate()
    client.send(Buffer.concat([...pieces.slice(3), Buffer.from('0\r\n\r\n')]))
    await client.responseWith(({ body: answer }) => answer.includes(`"index":${at}`), 'published')
    client.socket.destroy()
  }
  const all = await kept(site)
  assert.equal(all.length, body.length - 1)
  for (const batch of all) assert.deepEqual(batch, [payload])
})

test('N2: a publish body that ends within a character, or has a byte order mark, is refused and not mended', async (t) => {
  const site = await serve(t)
  const within = body.subarray(0, body.indexOf('😀') + 2)
  const marked = Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), Buffer.from([0xff]), body])
  for (const bad of [within, marked]) {
    const client = await sendPieces(t, site, bytesOf(Buffer.concat([head(`Content-Length: ${bad.length}`), bad])))
    const { statusLine } = await client.responseWith(({ body: answer }) => answer.endsWith('}'), 'refused')
    assert.match(statusLine, / 400 /)
  }
  assert.equal(site.broker.status.newestIndex, 0)
})

for (const face of faces) {
  test(`N2 ${face}: a follow request of single bytes opens the same stream`, async (t) => {
    const site = await serve(t)
    await site.broker.publish({ topic: 'T', type: 't', payload })
    const client = await sendPieces(t, site, bytesOf(Buffer.from(followRequest(face, { from: 'earliest' }))))
    const follower = new Follower(face)
    await until(() => client.bytes.includes('quoted'), 'the batch')
    follower.push(client.bytes)
    assert.deepEqual(follower.batches, [{ index: 1, payloads: [payload] }])
  })

  test(`N2 ${face}: however a response is split, a client reads the same from it`, async (t) => {
    const random = seededRandom(`splits ${face}`)
    const site = await serve(t, { brokerOptions: { capacity: 5 } })
    for (let n = 1; n <= 12; n++) await site.broker.publish({ topic: 'T', type: 't', payload: `${payload} ${n}` })
    const socket = connect({ port: site.port, host: '127.0.0.1' })
    const pieces: Buffer[] = []
    socket.on('data', (piece: Buffer) => pieces.push(piece))
    // From below what is kept, so that a gap comes first.
    socket.write(followRequest(face, { from: face === 'Nomad' ? 1 : `${site.broker.status.epoch}:1` }))
    await until(() => Buffer.concat(pieces).includes(`${12}"`), 'the last batch')
    await site.broker.close()
    await until(() => /\r\n0\r\n\r\n$/.test(Buffer.concat(pieces).toString('latin1')), 'the last chunk')
    socket.destroy()
    const bytes = Buffer.concat(pieces)
    const read = (parts: readonly Uint8Array[]) => {
      const follower = new Follower(face)
      for (const part of parts) follower.push(part)
      const { story, closed, cursor, index, isComplete, status } = follower
      return { story, closed, cursor, index, isComplete, status }
    }
    const whole = read([bytes])
    assert.equal(whole.closed?.code, 'SHUTDOWN')
    assert.ok(whole.isComplete && whole.story.length > 5)
    assert.deepEqual(read(bytesOf(bytes)), whole, 'single bytes')
    for (let at = 1; at < bytes.length; at++) {
      assert.deepEqual(read([bytes.subarray(0, at), bytes.subarray(at)]), whole, `split at ${at}`)
    }
    for (let n = 0; n < 2000; n++) {
      const parts: Uint8Array[] = []
      for (let at = 0; at < bytes.length; ) {
        const length = random.below(random.pick([2, 10, 300]))
        parts.push(bytes.subarray(at, at + length))
        at += length
      }
      assert.deepEqual(read(parts), whole)
    }
  })
}

/** The payloads of all batches that a site keeps. */
async function kept(site: Site): Promise<unknown[][]> {
  const subscription = site.broker.subscribe({ from: 'earliest' })
  const batches: unknown[][] = []
  for (let batch = subscription.take(); batch; batch = subscription.take()) {
    batches.push(batch.events.map((event) => event.payload))
  }
  subscription.close()
  return batches
}
