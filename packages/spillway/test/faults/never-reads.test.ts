import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import {
  type Client,
  type Face,
  type Follower,
  type FollowOptions,
  faces,
  follow,
  followRequest,
  inParallel,
} from '../support/follower.ts'
import { ask, serve, until } from '../support/http.ts'
import { Delays, HealthyReaders } from '../support/latency.ts'
import { isFullSize } from '../support/sizes.ts'

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
    handler: { stallTimeout: 10 * 60_000 },
  })
  const clients: Client[] = []
  t.after(() => {
    for (const { socket } of clients) socket.destroy()
  })
  const open = (face: Face, options: FollowOptions = {}): Client => {
    const client = follow(site.port, face, followRequest(face), { keepsPayloads: false, ...options })
    clients.push(client)
    return client
  }
  const healthy = Array.from({ length: 3 }, (_, n) => open(n === 0 ? 'SSE' : 'NDJSON'))
  const readers = new HealthyReaders(site.broker, healthy)
  await until(() => site.broker.status.subscriptions === 3, 'the healthy ones are there')
  const load = { rate: 2000, size: 4000 }
  // The first second is the compiler's.
  await readers.load(new Delays(), { ...load, isOver: (seconds) => seconds > 1 })
  const calm = new Delays()
  await readers.load(calm, { ...load, isOver: (seconds) => seconds > 4 })
  const before = await memory()

  site.exchanges.length = 0
  const paused: Client[] = []
  await inParallel(1500, 100, async (n) => {
    const client = open(n < 1000 ? 'SSE' : 'NDJSON', { isPaused: true })
    paused.push(client)
    await until(() => client.isConnected, 'connected')
  })
  await until(() => site.broker.status.subscriptions === 1503, 'all are there')
  const stalled = site.exchanges.map(({ response }) => response)
  assert.equal(stalled.length, 1500)
  let isSlow = true
  let isOpen = false
  const slow = open('NDJSON', {
    onread: {
      // A byte is taken from the kernel; what a socket reads ahead would be 64 KiB.
      buffer: () => Buffer.allocUnsafe(isSlow ? 1 : 64 * 1024),
      callback: (size, bytes) => {
        slow.bytes += size
        slow.follower.push(bytes.subarray(0, size))
        return !isSlow || !isOpen
      },
    },
  })
  await until(() => slow.follower.index > 0, 'the slow one is there')
  isOpen = true
  const slowFrom = slow.follower.index
  const slowBytes = slow.bytes
  const sip = setInterval(() => slow.socket.resume(), 1000)
  t.after(() => clearInterval(sip))

  const isFull = () => stalled.every(({ socket }) => (socket?.writableLength ?? 0) > 0)
  // The sockets take their time; nobody may be 8 MiB behind who is not stalled.
  const filling = new Delays()
  for (let newest = slowFrom; !isFull(); newest = site.broker.status.newestIndex) {
    assert.ok(newest - slowFrom < 50_000, 'the sockets are full at some time')
    await readers.load(filling, { ...load, rate: 1e6, isOver: () => site.broker.status.newestIndex > newest })
  }
  const fullAt = site.broker.status.newestIndex
  const busy = new Delays()
  const isEnough = () => {
    const { newestIndex } = site.broker.status
    // Whatever the kernel and the ring hold for the slow one, some is behind it that nobody holds any more.
    return (newestIndex - fullAt) * 4000 > 40 * mebibyte && (newestIndex - slowFrom) * 4000 > kernelHolds() + 2 * ring
  }
  const began = performance.now()
  const seconds = () => (performance.now() - began) / 1000
  let peak = { heap: 0, rss: 0 }
  while (seconds() < (isFullSize ? 60 : 5) || !isEnough()) {
    assert.ok(seconds() < 120, 'enough is behind each at some time')
    await readers.load(busy, { ...load, isOver: (some) => some > 5 })
    const now = await memory()
    peak = {
      heap: Math.max(peak.heap, now.heap - before.heap),
      rss: Math.max(peak.rss, now.rss - before.rss),
    }
  }
  const took = seconds()
  assert.ok(isFull(), 'all sockets are full')
  assert.ok(
    paused.every(({ socket, isClosed }) => socket.bytesRead === 0 && !isClosed),
    'none of them has read anything, and none has gone',
  )
  const sipped = slow.bytes - slowBytes
  assert.ok(sipped >= 3 && sipped < took * 3, `the slow one has read ${sipped} bytes in ${took.toFixed(0)} s`)
  const rate = (site.broker.status.newestIndex - fullAt) / took
  assert.ok(rate > load.rate / 4, `${rate.toFixed(0)} batches a second reach the healthy ones`)
  const behind = (site.broker.status.newestIndex - fullAt) * 4000
  console.log(
    [
      `${fullAt - slowFrom} batches filled the sockets`,
      `1,500 full sockets, ${(behind / mebibyte).toFixed(0)} MiB behind each after ${took.toFixed(0)} s at ${rate.toFixed(0)}/s; slow: ${sipped} bytes read`,
      `heap and buffers: ${(peak.heap / mebibyte).toFixed(1)} MiB more, RSS: ${(peak.rss / mebibyte).toFixed(1)} MiB more`,
      `calm: ${calm}`,
      `busy: ${busy}`,
    ].join('\n'),
  )
  // A full connection holds up to `highWaterMark`, 16 KiB, and one write of at most four times that on top.
  const bound = 2 * ring + 1500 * 5 * 16 * 1024
  assert.ok(peak.heap < bound, `${peak.heap} bytes more on the heap and in buffers`)
  // Beside it, what V8 keeps for the next batches.
  assert.ok(peak.rss < bound + 64 * mebibyte, `${peak.rss} bytes more resident`)
  // Full sockets hold so much that the kernel is short of memory for TCP, whoever filled them. It then drops what healthy
  // readers are sent and sends it again after 200 ms or more: some such times are not the server's.
  busy.assertHardlyAbove(calm, { p50: 60, p99: 1000 })
  assert.ok(busy.workPerBatch < calm.workPerBatch * 2, 'who reads nothing makes no work')

  clearInterval(sip)
  isSlow = false
  const told = [slow, ...paused.slice(0, 10), ...paused.slice(-10)]
  for (const { socket } of told) socket.resume()
  const last = site.broker.status.newestIndex
  await until(() => told.every(({ follower }) => follower.index === last), 'who reads again comes to the end')
  for (const { follower } of told) assertNoneIsSilent(follower)
  console.log(`gaps that the slow one was told: ${JSON.stringify(slow.follower.gaps)}`)
  for (const { socket } of clients) socket.destroy()
  await until(() => site.broker.status.subscriptions === 0, 'all are gone')
  assert.equal((await ask(site, '/v1/status')).json.streams, 0)
})

/** How much the kernel may hold for one connection, at both ends. */
function kernelHolds(): number {
  const most = (name: string) => Number(readFileSync(`/proc/sys/net/ipv4/${name}`, 'utf8').trim().split(/\s+/)[2])
  return most('tcp_wmem') + most('tcp_rmem')
}

/** Fails unless a reader was told of every batch that it was not sent, and that there were some. */
function assertNoneIsSilent({ face, story, gaps }: Follower): void {
  assert.ok(gaps.length > 0, `${face}: it is told what it lost`)
  let at: number | undefined
  for (const one of story) {
    if ('before' in one) {
      assert.equal(one.after, at ?? one.after, face)
      at = one.before - 1
    } else {
      assert.equal(one.index, (at ?? one.index - 1) + 1, face)
      at = one.index
    }
  }
}

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
