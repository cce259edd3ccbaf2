import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { test } from 'node:test'
import { type Face, Follower, faces, follow, followRequest, inParallel } from '../support/follower.ts'
import { ask, serve, until } from '../support/http.ts'

const count = 20

const payloads = Array.from({ length: count }, (_, n) => `batch ${n + 1} über 日本 😀 ${'x'.repeat(n)}`)

/** Sends a request and takes exactly `bytes` of the answer; then the connection is gone. */
function takeBytes(port: number, face: Face, request: string, bytes: number): Promise<Follower> {
  return new Promise((resolve, reject) => {
    const follower = new Follower(face)
    const socket = connect({ port, host: '127.0.0.1' })
    let left = bytes
    socket.on('error', reject)
    socket.on('connect', () => socket.write(request))
    socket.on('data', (piece: Buffer) => {
      follower.push(piece.subarray(0, left))
      left -= Math.min(left, piece.length)
      if (left === 0) socket.resetAndDestroy()
    })
    socket.on('close', () => (left === 0 ? resolve(follower) : reject(new Error('the server closed the connection'))))
  })
}

/** Follows until the last batch has come. */
function takeRest(port: number, face: Face, request: string): Promise<Follower & { bytes: number }> {
  return new Promise((resolve, reject) => {
    const { socket, follower } = follow(port, face, request)
    follower.onMessage = () => {
      if (follower.index < count) return
      setImmediate(() => {
        socket.destroy()
        resolve(Object.assign(follower, { bytes: socket.bytesRead }))
      })
    }
    socket.on('close', () => {
      if (follower.index < count) reject(new Error(`closed at ${follower.index}`))
    })
  })
}

for (const face of faces) {
  test(`N1 ${face}: cut after any byte of 20 batches, a client resumes with exactly what it has not got`, async (t) => {
    const site = await serve(t)
    for (const payload of payloads) await site.broker.publish({ topic: 'T', type: 't', payload })
    const request = followRequest(face, { from: 'earliest' })
    const { bytes } = await takeRest(site.port, face, request)
    assert.ok(bytes > count * 100)
    const stoodAt = new Map<number, number>()
    await inParallel(bytes, 16, async (n) => {
      const cut = await takeBytes(site.port, face, request, n + 1)
      site.exchanges.length = 0
      stoodAt.set(cut.index, (stoodAt.get(cut.index) ?? 0) + 1)
      const known = cut.batches
      if (cut.index === count) {
        assert.equal(known.length, count)
        return
      }
      const rest = await takeRest(site.port, face, cut.resumption)
      const all = [...known, ...rest.batches]
      assert.deepEqual(
        all.map(({ index }) => index),
        Array.from({ length: count }, (_, at) => at + 1),
        `cut after byte ${n + 1}`,
      )
      for (const [at, batch] of all.entries()) assert.deepEqual(batch.payloads, [payloads[at]])
      assert.deepEqual([...cut.gaps, ...rest.gaps], [])
    })
    assert.equal(stoodAt.size, count + 1, 'cuts fell before, into and after each of the batches')
    await until(() => site.broker.status.subscriptions === 0, 'all streams are gone')
    assert.equal((await ask(site, '/v1/status')).json.streams, 0)
    assert.deepEqual(site.errors, [])
  })
}

test('N1: a request that is cut after any byte opens nothing, publishes nothing, and disturbs nobody', async (t) => {
  const site = await serve(t)
  const healthy = follow(site.port, 'NDJSON')
  t.after(() => healthy.socket.destroy())
  await until(() => healthy.follower.status === 200, 'the healthy client follows')
  const body = JSON.stringify({ events: [{ topic: 'T', type: 't', payload: 'über 日本 😀' }] })
  const publish = [
    'POST /v1/events HTTP/1.1',
    'Host: localhost',
    'Content-Type: application/json',
    `Content-Length: ${Buffer.byteLength(body)}`,
    '',
    body,
  ].join('\r\n')
  let cuts = 0
  for (const request of [Buffer.from(publish), ...faces.map((face) => Buffer.from(followRequest(face)))]) {
    await inParallel(request.length, 16, async (length) => {
      const socket = connect({ port: site.port, host: '127.0.0.1' })
      await new Promise<void>((resolve, reject) => {
        socket.on('error', reject)
        socket.on('connect', () => {
          if (length === 0) socket.resetAndDestroy()
          else socket.write(request.subarray(0, length), () => socket.resetAndDestroy())
        })
        socket.on('close', () => resolve())
      })
      cuts++
    })
  }
  assert.ok(cuts > 400)
  await until(() => site.broker.status.subscriptions === 1, 'only the healthy client is left')
  assert.equal(site.broker.status.newestIndex, 0)
  await site.broker.publish({ topic: 'T', type: 't' })
  await until(() => healthy.follower.index === 1, 'the healthy client gets what comes')
})
