import { socketContender } from './contenders.ts'
import { eventText } from './event.ts'
import { usageOf } from './usage.ts'

// One process serves with one contender: `server.js <contender>`, controlled by messages `{ id, ask, args }`.
const contender = socketContender(process.argv[2] ?? '')
const start = await contender.load()
const server = await start()
let published = 0

function publish(count: number): void {
  const first = published + 1
  const events = Array.from({ length: count }, (_, n) => eventText(first + n))
  published += count
  server.publish(events, first)
}

/**
 * Single events at a steady rate, each published by itself. A busy event loop finds several due at once, as it would find
 * them in the socket of whoever publishes.
 */
async function atRate(perSecond: number, ms: number): Promise<number> {
  const started = performance.now()
  const total = Math.round((perSecond * ms) / 1000)
  const goal = published + total
  await new Promise<void>((resolve) => {
    const next = () => {
      const elapsed = performance.now() - started
      // A server that cannot keep up is not asked for ever.
      if (published === goal || elapsed > ms * 1.5) return resolve()
      const due = goal - total + Math.min(total, Math.floor((elapsed * perSecond) / 1000) + 1)
      while (published < due) publish(1)
      setTimeout(next, 1)
    }
    next()
  })
  return published
}

let looked = performance.eventLoopUtilization()

function busy(): number {
  const now = performance.eventLoopUtilization()
  const { utilization } = performance.eventLoopUtilization(now, looked)
  looked = now
  return utilization * 100
}

async function memory(): Promise<number> {
  for (let n = 0; n < 4; n++) {
    globalThis.gc?.()
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return usageOf(server.pid).rss
}

const answers: Readonly<Record<string, (...args: number[]) => unknown>> = {
  publish: (count = 1) => {
    publish(count)
    return published
  },
  rate: (perSecond = 1, ms = 0) => atRate(perSecond, ms),
  readers: () => server.readers(),
  busy,
  usage: () => usageOf(server.pid),
  memory,
}

process.on('message', async ({ id, ask, args }: { id: number; ask: string; args: number[] }) => {
  process.send?.({ id, answer: await answers[ask]?.(...args) })
})
process.on('disconnect', () => process.exit())
process.on('SIGTERM', () => process.exit())
process.on('exit', () => {
  if (server.pid !== undefined) process.kill(server.pid)
})
process.send?.({ id: 0, answer: server.port })
