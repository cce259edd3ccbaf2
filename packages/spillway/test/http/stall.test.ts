import assert from 'node:assert/strict'
import type { ServerResponse } from 'node:http'
import { type TestContext, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { ask, type Site, serve, until } from '../support/http.ts'
import { get, RawClient } from '../support/raw.ts'
import { followSse } from '../support/streams.ts'

const mebibyte = 2 ** 20
const batchSize = 64 * 1024
/** More than the kernel keeps for a connection on any machine that was looked at: 4 MiB to send and 32 MiB to receive. */
const volume = 64 * mebibyte

const faces = [
  { face: 'SSE', path: '/v1/events?from=earliest', accept: 'text/event-stream' },
  { face: 'NDJSON', path: '/v1/events?from=earliest', accept: 'application/x-ndjson' },
  { face: 'Nomad', path: '/v1/event/stream?index=0', accept: '*/*' },
]

/** A client that opens a stream, sees its first bytes and reads no more. */
async function stalledClient(
  t: TestContext,
  site: Site,
  { path, accept }: { path: string; accept: string },
): Promise<{ client: RawClient; response: ServerResponse }> {
  const client = await RawClient.open(t, site.port, get(path, [`Accept: ${accept}`, 'X-Nomad-Token: stalled']))
  await client.responseWith(({ body }) => body.length > 2, 'the opening')
  client.socket.pause()
  const { response } = site.exchanges.at(-1) as { response: ServerResponse }
  return { client, response }
}

function memory(): number {
  globalThis.gc?.()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

test('33: clients that stop reading hold no more than their sockets do, delay nobody, and are cut off', async (t) => {
  const site = await serve(t, {
    brokerOptions: { capacity: 100, maxBytes: 4 * mebibyte },
    handler: { stallTimeout: 1000 },
  })
  const stalled = await Promise.all(faces.map((face) => stalledClient(t, site, face)))
  const healthy = await followSse(t, site)
  await healthy.nextBlock()
  const { epoch } = site.broker.status
  const payload = 'x'.repeat(batchSize)
  const before = memory()
  let longestQueue = 0
  let peak = 0
  const last = Math.ceil(volume / batchSize)
  for (let index = 1; index <= last; index++) {
    await site.broker.publish({ topic: 'T', type: 't', payload })
    assert.equal((await healthy.nextMessage())?.lastEventId, `${epoch}:${index}`, 'the healthy reader sees all')
    for (const { response } of stalled) longestQueue = Math.max(longestQueue, response.writableLength)
    if (index % 100 === 0) peak = Math.max(peak, memory() - before)
  }
  // One write is at most 64 KiB and a batch more, and a chunk's frame.
  assert.ok(longestQueue > 0, 'the kernel buffers are full')
  assert.ok(longestQueue <= 2 * (batchSize + 1024) + 64 * 1024, `${longestQueue} bytes wait in a response`)
  // The broker keeps 4 MiB of payload, as text and as bytes for each of three formats.
  assert.ok(peak < 24 * mebibyte, `the process grew by ${(peak / mebibyte).toFixed(1)} MiB`)
  await until(() => site.broker.status.subscriptions === 1, 'the stalled subscriptions end')
  await until(() => stalled.every(({ response }) => response.destroyed), 'their connections are closed')
  assert.equal((await ask(site, '/v1/status')).json.streams, 1)
  const after = memory() - before
  assert.ok(after < 24 * mebibyte, `${(after / mebibyte).toFixed(1)} MiB stay`)
  for (const { client, response } of stalled) {
    assert.equal(response.writableLength, 0, 'nothing waits any more')
    client.socket.resume()
    await until(() => client.closed, 'the client learns of it')
    assert.ok(!client.response?.complete, 'the body was cut, not ended')
    client.socket.destroy()
  }
  await site.broker.publish({ topic: 'T', type: 'end' })
  assert.equal((await healthy.nextMessage())?.lastEventId, `${epoch}:${last + 1}`)
})

for (const highWaterMark of [1000, 200_000]) {
  test(`33: of what waits for a client that stops reading, highWaterMark counts: ${highWaterMark} bytes`, async (t) => {
    const site = await serve(t, {
      brokerOptions: { capacity: 10_000, maxBytes: 128 * mebibyte },
      handler: { highWaterMark },
    })
    const clients = await Promise.all(faces.map((face) => stalledClient(t, site, face)))
    const size = 500
    const largest = clients.map(() => 0)
    const isFull = () => largest.every((length) => length >= highWaterMark)
    for (let turns = 0; turns < 20_000 && !isFull(); turns++) {
      for (let n = 0; n < 200; n++) await site.broker.publish({ topic: 'T', type: 't', payload: 'x'.repeat(size) })
      await setImmediate()
      for (const [n, { response }] of clients.entries()) {
        largest[n] = Math.max(largest[n] as number, response.writableLength)
      }
    }
    const report = `${largest} bytes waited`
    assert.ok(isFull(), report)
    // The batch that made a write large enough, with its envelope; and the frame of the chunk.
    assert.ok(Math.max(...largest) < 5 * highWaterMark + size + 200 + 20, report)
  })
}

test('33: a client that reads on after a pause goes on where it stood, and is told what it lost', async (t) => {
  const site = await serve(t, { brokerOptions: { capacity: 20 } })
  const { client } = await stalledClient(t, site, { path: '/v1/events', accept: 'application/x-ndjson' })
  const payload = 'x'.repeat(batchSize)
  const last = Math.ceil(volume / batchSize)
  for (let index = 1; index <= last; index++) {
    await site.broker.publish({ topic: 'T', type: 't', payload })
    await setImmediate()
  }
  client.socket.resume()
  await until(() => client.bytes.subarray(-200 - batchSize).includes(`{"index":${last},`), 'the newest batch')
  const { body } = await client.responseWith(() => true, 'the body')
  let at = 0
  let gaps = 0
  for (const line of body.split('\n').slice(1)) {
    const index = /^\{"index":(\d+)/.exec(line)?.[1]
    const gap = /^\{"gap":\{"after":(\d+),"before":(\d+),"reason":"lag"/.exec(line)
    if (index !== undefined) assert.equal(Number(index), ++at)
    if (!gap) continue
    gaps++
    assert.equal(Number(gap[1]), at, 'the gap begins where the reader stood')
    at = Number(gap[2]) - 1
  }
  assert.deepEqual([at, gaps > 0], [last, true])
})

test('33: a client that reads slowly, but reads, is not cut off', async (t) => {
  const stallTimeout = 600
  const site = await serve(t, {
    brokerOptions: { capacity: 2000, maxBytes: 128 * mebibyte },
    handler: { stallTimeout },
  })
  const { client } = await stalledClient(t, site, { path: '/v1/events', accept: 'application/x-ndjson' })
  const payload = 'x'.repeat(batchSize)
  const publish = async (bytes: number): Promise<void> => {
    const batch = { events: [{ topic: 'T', type: 't', payload }] }
    // At once: to wait for each would be a stall by itself where the log is in another thread.
    await site.broker.publishAll(new Array(Math.ceil(bytes / batchSize)).fill(batch))
  }
  await publish(volume)
  const began = performance.now()
  let seen = client.bytes.length
  while (performance.now() - began < stallTimeout * 4) {
    // However much one look takes, there is more.
    const published = publish(2 * mebibyte)
    client.socket.resume()
    // Enough for the kernel to open its window again.
    await until(() => client.bytes.length > seen + mebibyte || client.closed, 'more bytes')
    await published
    client.socket.pause()
    assert.ok(!client.closed, `cut off after ${(performance.now() - began).toFixed(0)} ms`)
    seen = client.bytes.length
    const pausedAt = performance.now()
    await until(() => performance.now() - pausedAt > stallTimeout / 8, 'the pause is over')
  }
  assert.equal(site.broker.status.subscriptions, 1)
})

/** Fills what the kernel takes, with small batches, until a few bytes wait in the response: fewer than make it report that it is full. */
async function fillKernel(site: Site, response: ServerResponse): Promise<void> {
  const payload = 'x'.repeat(1000)
  while (response.writableLength === 0) {
    await site.broker.publish({ topic: 'T', type: 't', payload })
    await setImmediate()
  }
  assert.ok(!response.writableNeedDrain, 'the response does not count as full')
}

test('33: a client that takes no bytes is cut off even if only a few wait for it', async (t) => {
  const site = await serve(t, { handler: { stallTimeout: 300 } })
  const { response } = await stalledClient(t, site, { path: '/v1/events', accept: 'application/x-ndjson' })
  await fillKernel(site, response)
  await until(
    () => response.destroyed,
    () => `cut off; ${response.writableLength} bytes wait`,
    3000,
  )
  assert.equal(site.broker.status.subscriptions, 0)
})

test('33: a stream that was ended, but whose client takes no bytes, does not keep its connection', async (t) => {
  const site = await serve(t, { handler: { stallTimeout: 300 } })
  const { response } = await stalledClient(t, site, { path: '/v1/events', accept: 'application/x-ndjson' })
  await fillKernel(site, response)
  const { socket } = response
  site.broker.revoke('stalled')
  assert.equal(site.broker.status.subscriptions, 0)
  await until(() => socket?.destroyed === true, 'the connection is closed', 3000)
})

test('33: a stalled client that is revoked is cut off, too', async (t) => {
  const site = await serve(t, { brokerOptions: { maxBytes: 128 * mebibyte }, handler: { stallTimeout: 300 } })
  const { response } = await stalledClient(t, site, { path: '/v1/events', accept: 'application/x-ndjson' })
  const payload = 'x'.repeat(batchSize)
  while (response.writableLength === 0) {
    await site.broker.publish({ topic: 'T', type: 't', payload })
    await setImmediate()
  }
  const { socket } = response
  site.broker.revoke('stalled')
  assert.equal(site.broker.status.subscriptions, 0)
  await until(() => socket?.destroyed === true, 'the connection is closed', 3000)
  assert.equal((await ask(site, '/v1/status')).json.streams, 0)
})

test('33: a stalled client is cut off when the stall time-out is over, not much later', async (t) => {
  const stallTimeout = 1000
  const site = await serve(t, { brokerOptions: { maxBytes: 128 * mebibyte }, handler: { stallTimeout } })
  const { response } = await stalledClient(t, site, { path: '/v1/events', accept: 'application/x-ndjson' })
  const payload = 'x'.repeat(batchSize)
  while (response.writableLength === 0) {
    await site.broker.publish({ topic: 'T', type: 't', payload })
    await setImmediate()
  }
  const fullAt = performance.now()
  await until(() => response.destroyed, 'it is cut off')
  const took = performance.now() - fullAt
  assert.ok(took < stallTimeout * 1.5, `after ${took.toFixed(0)} ms`)
})
