import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { type Client, type Face, faces, follow, followRequest, inParallel } from '../support/follower.ts'
import { ask, serve, until } from '../support/http.ts'
import { latencies, quantile } from '../support/latency.ts'

const mebibyte = 2 ** 20
const ring = 8 * mebibyte

async function memory(): Promise<{ heap: number; rss: number }> {
  // Memory outside the heap is given back a little after the collection that found it unused.
  for (let n = 0; n < 3; n++) {
    globalThis.gc?.()
    await setImmediate()
  }
  const { heapUsed, external, rss } = process.memoryUsage()
  return { heap: heapUsed + external, rss }
}

test('N6: 1,500 clients that read nothing cost no more than their sockets, and neither healthy nor slow readers notice', async (t) => {
  const site = await serve(t, {
    brokerOptions: { capacity: 10_000, maxBytes: ring },
    handler: { stallTimeout: 60_000 },
  })
  const clients: Client[] = []
  t.after(() => {
    for (const { socket } of clients) socket.destroy()
  })
  const open = (face: Face): Client => {
    const client = follow(site.port, face, followRequest(face), { keepsPayloads: false })
    clients.push(client)
    return client
  }
  const healthy = Array.from({ length: 4 }, (_, n) => open(n === 0 ? 'SSE' : 'NDJSON'))
  await until(() => site.broker.status.subscriptions === 4, 'the healthy ones are there')
  const calm = await latencies(site, healthy, 300, 4000)
  const before = await memory()

  site.exchanges.length = 0
  await inParallel(1500, 100, async (n) => {
    const client = open(n < 1000 ? 'SSE' : 'NDJSON')
    client.socket.pause()
    await until(() => client.isConnected, 'connected')
  })
  await until(() => site.broker.status.subscriptions === 1504, 'all are there')
  const stalled = site.exchanges.map(({ response }) => response)
  assert.equal(stalled.length, 1500)
  const slow = open('NDJSON')
  await until(() => slow.follower.status === 200, 'the slow one is there')
  const slowFrom = site.broker.status.newestIndex

  const payload = 'x'.repeat(4000)
  const isFull = () => stalled.every(({ socket }) => (socket?.writableLength ?? 0) > 0)
  const publish = async (): Promise<void> => {
    await site.broker.publish({ topic: 'T', type: 't', payload })
    await setImmediate()
  }
  let published = 0
  for (; !isFull(); published++) {
    assert.ok(published < 20_000, 'the sockets are full at some time')
    await publish()
  }
  const fullAt = site.broker.status.newestIndex
  let peak = 0
  slow.socket.pause()
  for (let n = 0; n < 10_600; n++) {
    await publish()
    // Some 64 KiB at a time, much less than what comes.
    if (n % 200 === 0) slow.socket.resume()
    if (n % 200 === 1) slow.socket.pause()
    if (n % 1000 === 0) peak = Math.max(peak, (await memory()).heap - before.heap)
  }
  assert.ok(isFull(), 'none of them has read anything')
  assert.ok((site.broker.status.newestIndex - fullAt) * 4000 > 40 * mebibyte, '40 MiB are behind each')
  const grown = (await memory()).rss - before.rss
  console.log(
    `heap and buffers: ${(peak / mebibyte).toFixed(1)} MiB more, RSS: ${(grown / mebibyte).toFixed(1)} MiB more`,
  )
  // Both ends of each connection are in this process.
  const bound = 2 * ring + 1500 * 64 * 1024
  assert.ok(peak < bound, `${peak} bytes more on the heap and in buffers`)

  const last = site.broker.status.newestIndex
  await until(() => healthy.every(({ follower }) => follower.index === last), 'the healthy ones have all')
  for (const { follower } of healthy) {
    assert.equal(follower.batches.length, last)
    assert.deepEqual(follower.gaps, [])
  }
  const busy = await latencies(site, healthy, 300, 4000)
  const report = [calm, busy].map(
    (took) => `p50 ${quantile(took, 0.5).toFixed(2)} p99 ${quantile(took, 0.99).toFixed(2)}`,
  )
  console.log(`healthy readers: ${report.join(' ms, then ')} ms`)
  assert.ok(quantile(busy, 0.5) < quantile(calm, 0.5) * 1.2 + 2, report.join(', then '))

  slow.socket.resume()
  await until(() => slow.follower.index === site.broker.status.newestIndex, 'the slow one comes to the end')
  let at = slowFrom
  for (const one of slow.follower.story) {
    if ('before' in one) {
      assert.equal(one.after, at)
      at = one.before - 1
    } else assert.equal(one.index, ++at)
  }
  // How many depends on what the kernel holds for it; that none is silent does not.
  console.log(`the slow one was told ${slow.follower.gaps.length} gaps`)
  for (const { socket } of clients) socket.destroy()
  await until(() => site.broker.status.subscriptions === 0, 'all are gone')
  assert.equal((await ask(site, '/v1/status')).json.streams, 0)
})

test('N6: all of 300 clients that read nothing are cut off when the stall time-out is over', async (t) => {
  const stallTimeout = 1000
  const site = await serve(t, { brokerOptions: { capacity: 100, maxBytes: ring }, handler: { stallTimeout } })
  const clients = Array.from({ length: 300 }, (_, n) => {
    const client = follow(site.port, n < 200 ? 'SSE' : 'NDJSON')
    client.socket.pause()
    return client
  })
  t.after(() => {
    for (const { socket } of clients) socket.destroy()
  })
  await until(() => site.broker.status.subscriptions === 300, 'all are there')
  const payload = 'x'.repeat(100_000)
  const responses = site.exchanges.map(({ response }) => response)
  while (!responses.every(({ socket }) => (socket?.writableLength ?? 0) > 0)) {
    await site.broker.publish({ topic: 'T', type: 't', payload })
    await setImmediate()
  }
  const fullAt = performance.now()
  await until(() => site.broker.status.subscriptions === 0, 'all are cut off')
  const took = performance.now() - fullAt
  assert.ok(took < stallTimeout * 1.5 + 500, `after ${took.toFixed(0)} ms`)
  await until(() => responses.every(({ destroyed }) => destroyed), 'and their connections are closed')
})

test('P8: what readers in several formats have been sent does not multiply what the buffer may hold', async (t) => {
  const site = await serve(t, { brokerOptions: { capacity: 10_000, maxBytes: 32 * mebibyte } })
  const clients = faces.map((face) => follow(site.port, face, followRequest(face), { keepsPayloads: false }))
  t.after(() => {
    for (const { socket } of clients) socket.destroy()
  })
  await until(() => clients.every(({ follower }) => follower.status === 200), 'all follow')
  const before = (await memory()).heap
  let index = 0
  while (index * 16_000 < 40 * mebibyte) {
    index = await site.broker.publish({ topic: 'T', type: 't', payload: `${index}${'x'.repeat(16_000)}` })
    await until(() => clients.every(({ follower }) => follower.index === index), 'all have it')
  }
  const { bytes } = site.broker.status
  assert.ok(bytes > 31 * mebibyte, 'the buffer is full')
  const grown = (await memory()).heap - before
  console.log(`${(grown / mebibyte).toFixed(1)} MiB for a buffer of ${(bytes / mebibyte).toFixed(1)} MiB`)
  assert.ok(grown < bytes * 1.5, `${(grown / bytes).toFixed(2)} times what the buffer holds`)
})
