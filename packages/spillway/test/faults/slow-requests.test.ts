import assert from 'node:assert/strict'
import { connect, type Socket } from 'node:net'
import { test } from 'node:test'
import { faces, follow } from '../support/follower.ts'
import { serve, until } from '../support/http.ts'
import { latencies, quantile } from '../support/latency.ts'

// What a server in front of strangers should set, at a tenth of the size: 10 s for headers, 20 s for a request.
const timeouts = { headersTimeout: 2000, requestTimeout: 3000, connectionsCheckingInterval: 200 }

/** What a slow client sends, a byte at a time. */
const kinds: Record<string, string> = {
  'headers byte by byte': `GET /v1/events HTTP/1.1\r\nHost: localhost\r\nX-Slow: ${'x'.repeat(1000)}`,
  silent: '',
  'publish body byte by byte': 'x'.repeat(1000),
}
const publishHead =
  'POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n'

test('N7: 2,000 slow or silent clients are closed in time, and healthy readers do not notice them', async (t) => {
  const site = await serve(t, { server: timeouts })
  const healthy = faces.slice(0, 2).map((face) => follow(site.port, face))
  await until(() => site.broker.status.subscriptions === 2, 'the healthy ones are there')
  const calm = await latencies(site, healthy, 300)
  let accepted = 0
  site.server.on('connection', () => accepted++)
  const open = (n: number) => {
    const kind = Object.keys(kinds)[n % 3] as string
    const socket: Socket = connect(site.port, '127.0.0.1')
    const one = { kind, socket, sent: 0, closed: false, openedAt: 0, closedAt: 0, answer: '' }
    socket.on('connect', () => {
      one.openedAt = performance.now()
      if (kind.startsWith('publish')) socket.write(publishHead)
    })
    socket.on('data', (bytes) => {
      one.answer += bytes.toString('latin1')
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      one.closed = true
      one.closedAt = performance.now()
    })
    return one
  }
  const slow: ReturnType<typeof open>[] = []
  t.after(() => {
    clearInterval(trickle)
    for (const { socket } of [...slow, ...healthy]) socket.destroy()
  })
  const trickle = setInterval(() => {
    for (const one of slow) {
      const byte = kinds[one.kind]?.[one.sent]
      if (!byte || one.closed || one.openedAt === 0) continue
      one.socket.write(byte)
      one.sent++
    }
  }, 250)
  // No more at once than the kernel keeps for a server: it would forget silent ones without a word.
  for (let n = 0; n < 2000; n++) {
    if (n % 200 === 0)
      await until(
        () => accepted === n,
        () => `${n} are connected, not ${accepted}`,
      )
    slow.push(open(n))
  }
  await until(
    () => accepted === 2000,
    () => `all are connected, not ${accepted}`,
  )
  const atOnce = await new Promise<number>((resolve) => site.server.getConnections((_, count) => resolve(count)))
  assert.ok(atOnce > 1500, `${atOnce} connections at once`)
  const busy = await latencies(site, healthy, 300)
  await until(() => slow.every(({ closed }) => closed), 'the server closes them all')
  clearInterval(trickle)
  for (const [kind, limit] of [
    ['headers byte by byte', timeouts.headersTimeout],
    ['silent', timeouts.headersTimeout],
    ['publish body byte by byte', timeouts.requestTimeout],
  ] as const) {
    const these = slow.filter((one) => one.kind === kind)
    const longest = Math.max(...these.map(({ openedAt, closedAt }) => closedAt - openedAt))
    console.log(`${kind}: ${these.length}, closed within ${longest.toFixed(0)} ms`)
    assert.ok(longest < limit + 2500, `${kind}: ${longest.toFixed(0)} ms`)
    if (kind !== 'silent')
      assert.ok(
        these.every(({ sent }) => sent >= 2),
        `${kind}: they were slow, not silent`,
      )
    assert.ok(
      these.every(({ answer }) => !answer.includes(' 200 ')),
      kind,
    )
  }
  const report = [calm, busy].map(
    (took) => `p50 ${quantile(took, 0.5).toFixed(2)} p99 ${quantile(took, 0.99).toFixed(2)}`,
  )
  console.log(`healthy readers: ${report.join(' ms, then ')} ms`)
  assert.ok(quantile(busy, 0.5) < quantile(calm, 0.5) * 1.2 + 2, report.join(', then '))
  for (const { follower } of healthy) assert.equal(follower.batches.length, 600)
  assert.equal(site.broker.status.newestIndex, 600, 'none of them published anything')
  assert.equal(site.broker.status.subscriptions, 2)
})
