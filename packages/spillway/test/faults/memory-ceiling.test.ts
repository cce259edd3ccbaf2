import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type Client, follow, followRequest, inParallel } from '../support/follower.ts'
import { ask, post, until } from '../support/http.ts'
import { start } from '../support/programs.ts'
import type { Serving } from '../support/serving.ts'

const mebibyte = 2 ** 20
const ceiling = 256 * mebibyte
const maxStreams = 400
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

test('N10: with 256 MB, stalled readers, batches of 10 MB and 10,000 subscribe requests are shed, and the server lives', async (t) => {
  const group = memoryGroup()
  const options: Serving = {
    broker: { maxBytes: 24 * mebibyte },
    handler: { maxStreams, maxBody: 12 * mebibyte, stallTimeout: 60_000 },
  }
  const script = group ? `echo $$ > ${group}/cgroup.procs; exec "$@"` : 'exec "$@"'
  const node = [process.execPath, '--max-old-space-size=160', serving, JSON.stringify(options)]
  const { child, nextLine, complaints } = start(t, 'sh', ['-c', script, 'sh', ...node])
  // After the process was ended: a group that is in use cannot be removed.
  t.after(() => group && rmdirSync(group))
  const port = Number(await nextLine())
  const residentPeak = () =>
    Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) * 1024
  const clients: Client[] = []
  t.after(() => {
    for (const { socket } of clients) socket.destroy()
  })
  const healthy = follow(port, 'NDJSON')
  clients.push(healthy)
  for (let n = 0; n < 300; n++) {
    const client = follow(port, n % 2 === 0 ? 'SSE' : 'NDJSON')
    client.socket.pause()
    clients.push(client)
  }
  await until(async () => (await ask({ port }, '/v1/status')).json.streams === 301, 'all are there')
  const payload = 'x'.repeat(10_000_000)
  const acked: number[] = []
  let refused = 0
  let opened = 0
  const publishing = (async () => {
    for (let n = 0; n < 12; n++) {
      const { status, json } = await post({ port }, { events: [{ topic: 'T', type: 't', payload }] })
      assert.equal(status, 200, `publish ${n}: ${JSON.stringify(json)} ${complaints()}`)
      acked.push(json.index as number)
    }
  })()
  const asking = inParallel(10_000, 50, async (n) => {
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
  await Promise.all([publishing, asking])
  assert.equal(child.exitCode, null, complaints())
  assert.deepEqual(acked, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
  await until(() => healthy.follower.index === 12, 'the healthy reader comes to the end')
  let at = 0
  for (const one of healthy.follower.story) {
    if ('before' in one) at = one.before - 1
    else assert.equal(one.index, ++at)
  }
  console.log(
    `${refused} refused, ${opened} opened, ${(residentPeak() / mebibyte).toFixed(0)} MiB resident at most, ${group ? 'in a cgroup' : 'without a cgroup'}`,
  )
  assert.equal(opened, maxStreams - 301)
  assert.equal(refused, 10_000 - opened)
  assert.ok(residentPeak() < ceiling, `${residentPeak()} bytes`)
  const began = performance.now()
  assert.equal((await ask({ port }, '/healthz')).status, 200)
  assert.ok(performance.now() - began < 1000, 'healthy within a second')
})
