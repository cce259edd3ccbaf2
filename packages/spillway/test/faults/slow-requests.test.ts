import assert from 'node:assert/strict'
import { connect, type Socket } from 'node:net'
import { test } from 'node:test'
import { faces, follow } from '../support/follower.ts'
import { serve, until } from '../support/http.ts'
import { Delays, HealthyReaders } from '../support/latency.ts'
import { isFullSize } from '../support/sizes.ts'

// What a server in front of strangers should set; a fifth of it where a minute is too long.
const part = isFullSize ? 1 : 0.2
const timeouts = {
  headersTimeout: 10_000 * part,
  requestTimeout: 20_000 * part,
  connectionsCheckingInterval: 1000 * part,
}

const moments = 50

/** What a slow client sends, a byte a second. */
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
  const readers = new HealthyReaders(site.broker, healthy)
  const load = { rate: 500, size: 100 }
  // The first second is the compiler's.
  await readers.load(new Delays(), { ...load, isOver: (seconds) => seconds > 1 })
  const calm = new Delays()
  await readers.load(calm, { ...load, isOver: (seconds) => seconds > 3 })
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
  // Each in its own moment of the second: all at once, they would be a load that this process makes, not the server bears.
  let moment = 0
  const trickle = setInterval(() => {
    for (let n = moment++ % moments; n < slow.length; n += moments) {
      const one = slow[n] as (typeof slow)[number]
      const byte = kinds[one.kind]?.[one.sent]
      if (!byte || one.closed || one.openedAt === 0) continue
      one.socket.write(byte)
      one.sent++
    }
  }, 1000 / moments)
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
  const busy = new Delays()
  await readers.load(busy, {
    ...load,
    isOver: (seconds) => {
      assert.ok(seconds < 60, 'the server closes them all')
      return slow.every(({ closed }) => closed)
    },
  })
  clearInterval(trickle)
  for (const [kind, limit] of [
    ['headers byte by byte', timeouts.headersTimeout],
    ['silent', timeouts.headersTimeout],
    ['publish body byte by byte', timeouts.requestTimeout],
  ] as const) {
    const these = slow.filter((one) => one.kind === kind)
    const longest = Math.max(...these.map(({ openedAt, closedAt }) => closedAt - openedAt))
    const answered = these.filter(({ answer }) => answer.startsWith('HTTP/1.1 408')).length
    console.log(`${kind}: ${these.length}, closed within ${longest.toFixed(0)} ms, ${answered} answered 408`)
    assert.ok(longest < limit + 5000 * Math.max(part, 0.5), `${kind}: ${longest.toFixed(0)} ms`)
    const shortest = Math.min(...these.map(({ openedAt, closedAt }) => closedAt - openedAt))
    assert.ok(shortest > limit * 0.9, `${kind}: cut off by the time-out, not after ${shortest.toFixed(0)} ms`)
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
  console.log(`calm: ${calm}\nbusy: ${busy}`)
  busy.assertHardlyAbove(calm, { p50: 20, p99: 500 })
  assert.equal(site.broker.status.subscriptions, 2)
})
