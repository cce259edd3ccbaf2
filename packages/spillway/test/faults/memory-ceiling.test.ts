import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type Client, follow, followRequest, inParallel } from '../support/follower.ts'
import { ask, post, until } from '../support/http.ts'
import { start } from '../support/programs.ts'
import type { Serving } from '../support/serving.ts'
import { isFullSize } from '../support/sizes.ts'

const mebibyte = 2 ** 20
const ceiling = 256 * mebibyte
const maxStreams = 400
/** How long the load lasts, of which each part is spread over all of it. */
const seconds = isFullSize ? 60 : 10
const requests = isFullSize ? 10_000 : 2000
const serving = fileURLToPath(new URL('../support/serving.js', import.meta.url))

/** A control group with the ceiling, where this machine lets us make one; its path. */
function memoryGroup(): string | undefined {
  const path = `/sys/fs/cgroup/memory/spillway-${process.pid}`
  try {
    mkdirSync(path)
    writeFileSync(`${path}/memory.limit_in_bytes`, String(ceiling))
    return path
  } catch {
    return undefined
  }
}

test('N10: with 256 MB, stalled readers, batches of 10 MB and thousands of subscribe requests are shed, and the server lives', async (t) => {
  const group = memoryGroup()
  const options: Serving = {
    broker: { maxBytes: 24 * mebibyte },
    handler: { maxStreams, maxBody: 12 * mebibyte, stallTimeout: 10 * 60_000 },
  }
  const script = group ? `echo $$ > ${group}/cgroup.procs; exec "$@"` : 'exec "$@"'
  const node = [
    process.execPath,
    '--max-old-space-size=128',
    '--max-semi-space-size=4',
    serving,
    JSON.stringify(options),
  ]
  const { child, nextLine, complaints } = start(t, 'sh', ['-c', script, 'sh', ...node])
  // After the process was ended: a group that is in use cannot be removed.
  t.after(() => group && rmdirSync(group))
  const port = Number(await nextLine())
  // What the process itself takes: the pages of the program's file are shared and can be dropped.
  const resident = () => Number(/RssAnon:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) * 1024
  const clients: Client[] = []
  t.after(() => {
    for (const { socket } of clients) socket.destroy()
  })
  const healthy = follow(port, 'NDJSON', followRequest('NDJSON'), { keepsPayloads: false })
  clients.push(healthy)
  for (let n = 0; n < 300; n++) {
    const face = n % 2 === 0 ? 'SSE' : 'NDJSON'
    clients.push(follow(port, face, followRequest(face), { isPaused: true }))
  }
  const paused = clients.slice(1)
  await until(async () => (await ask({ port }, '/v1/status')).json.streams === 301, 'all are there')
  let refused = 0
  let opened = 0
  let acked = 0
  let newest = 0
  const publish = async (body: unknown, type: string): Promise<void> => {
    const { status, json } = await post({ port }, body, { 'content-type': type })
    assert.equal(status, 200, `${JSON.stringify(json)} ${complaints()}`)
    acked += json.batches as number
    newest = Math.max(newest, json.index as number)
  }
  const began = performance.now()
  /** Waits until it is the turn of part `n` of `count`. */
  const turnOf = async (n: number, count: number): Promise<void> => {
    const wait = began + (n / count) * seconds * 1000 - performance.now()
    if (wait > 0) await setTimeout(wait)
  }
  let peak = 0
  const watching = inParallel(seconds * 5, 1, async (n) => {
    await turnOf(n, seconds * 5)
    peak = Math.max(peak, resident())
  })
  const large = { events: [{ topic: 'T', type: 't', payload: 'x'.repeat(10_000_000) }] }
  const publishingLarge = inParallel(12, 1, async (n) => {
    await turnOf(n, 12)
    await publish(large, 'application/json')
  })
  // 2,000 batches of 4 kB a second, a hundred to a request.
  const line = JSON.stringify({ events: [{ topic: 'T', type: 't', payload: 'x'.repeat(4000) }] })
  const small = `${line}\n`.repeat(100)
  const publishingSmall = inParallel(seconds * 20, 1, async (n) => {
    await turnOf(n, seconds * 20)
    await publish(small, 'application/x-ndjson')
  })
  const asking = inParallel(requests, 50, async (n) => {
    await turnOf(n, requests)
    const client = follow(port, 'SSE', followRequest('SSE', { from: n % 2 === 0 ? 'earliest' : 'latest' }))
    await until(
      () => client.follower.status !== 0,
      () => `an answer to request ${n}; closed ${client.isClosed}; ${complaints()}`,
    )
    const { status, headers } = client.follower
    if (status === 200) {
      opened++
      // It stays, and reads nothing from here on.
      client.socket.pause()
      clients.push(client)
      return
    }
    assert.equal(status, 503)
    assert.match(headers, /^retry-after: [1-9]/im)
    refused++
    client.socket.destroy()
  })
  await Promise.all([watching, publishingLarge, publishingSmall, asking])
  const took = (performance.now() - began) / 1000
  assert.equal(child.exitCode, null, complaints())
  assert.ok(
    paused.every(({ socket, isClosed }) => socket.bytesRead === 0 && !isClosed),
    'none of the paused has read or gone',
  )
  assert.equal(acked, 12 + seconds * 20 * 100)
  assert.equal(newest, acked, 'each is kept under an index of its own')
  await until(() => healthy.follower.index === newest, 'the healthy reader comes to the end')
  let at = 0
  for (const one of healthy.follower.story) {
    if ('before' in one) at = one.before - 1
    else assert.equal(one.index, ++at)
  }
  assert.equal(at, newest)
  const status = (await ask({ port }, '/v1/status')).json
  assert.equal(status.newest, newest)
  console.log(
    [
      `${acked} batches acknowledged, ${refused} refused, ${opened} opened in ${took.toFixed(0)} s`,
      `${(peak / mebibyte).toFixed(0)} MiB of its own at most, ${group ? 'in a cgroup' : 'without a cgroup'}`,
      `the healthy one was told ${healthy.follower.gaps.length} gaps`,
    ].join('\n'),
  )
  assert.equal(opened, maxStreams - 301)
  assert.equal(refused, requests - opened)
  assert.ok(peak < ceiling, `${peak} bytes`)
  const askedAt = performance.now()
  assert.equal((await ask({ port }, '/healthz')).status, 200)
  assert.ok(performance.now() - askedAt < 1000, 'healthy within a second')
})
