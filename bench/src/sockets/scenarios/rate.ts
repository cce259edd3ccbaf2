import type { Measured } from '../../scenario.ts'
import type { SocketContender } from '../contender.ts'
import { nodeHttp, ours, perEvent, type SocketScenario } from '../scenario.ts'
import { Cannot, Stage } from '../stage.ts'

const clients = 1000
/** The 99th percentile, in microseconds, beyond which a rate does not count as carried. */
const patience = 150_000

export const rate: readonly SocketScenario[] = [
  {
    id: 'rate-1000',
    title: 'Highest rate of single events that 1,000 clients get completely, p99 at most 150 ms',
    unit: '/s',
    more: true,
    shows: ['p99 ms', 'RSS MB'],
    contenders: [
      ours,
      'spillway, rounds of 10 ms',
      nodeHttp,
      'better-sse',
      'ws',
      'nats-server',
      'redis pub/sub',
      perEvent,
    ],
    measure: highestRate,
  },
]

interface Carried {
  readonly perSecond: number
  readonly p99: number
  readonly rss: number
}

/**
 * Doubles the rate until it is too much, then halves the step. What fails is tried again with a fresh server: one second
 * in which somebody else had the machine must not count.
 */
async function highestRate(contender: SocketContender, quick: boolean): Promise<Measured> {
  const ms = quick ? 300 : 700
  let best: Carried | undefined
  let stage = await crowd(contender)
  try {
    let next = Math.max(5, (await pace(stage)) * 0.7)
    let failed = Number.POSITIVE_INFINITY
    let again = false
    for (let step = 0; step < 20; step++) {
      const carried = await attempt(stage, next, ms)
      if (carried) {
        best = carried
        next = failed < Number.POSITIVE_INFINITY ? Math.sqrt(carried.perSecond * failed) : next * 2
        again = false
      } else {
        // What could not be delivered would be in the way of the next attempt.
        await stage.close()
        stage = await crowd(contender)
        await pace(stage)
        again = !again
        if (again) continue
        failed = next
        next = best ? Math.sqrt(best.perSecond * failed) : next / 2
      }
      if (best && failed / best.perSecond < 1.25) break
    }
  } finally {
    await stage.close()
  }
  if (!best) throw new Cannot('no rate was carried')
  return { value: best.perSecond, extra: { 'p99 ms': best.p99 / 1000, 'RSS MB': best.rss / 1e6 } }
}

async function crowd(contender: SocketContender): Promise<Stage> {
  const stage = await Stage.open(contender)
  try {
    await stage.connect(clients)
    return stage
  } catch (error) {
    await stage.close()
    throw error
  }
}

/** Events per second if each waits for the one before; warms up, too. */
async function pace(stage: Stage): Promise<number> {
  for (let n = 0; n < 20; n++) await stage.deliver()
  const started = performance.now()
  for (let n = 0; n < 10; n++) await stage.deliver()
  return 10_000 / (performance.now() - started)
}

async function attempt(stage: Stage, perSecond: number, ms: number): Promise<Carried | undefined> {
  await stage.seen()
  const started = performance.now()
  const published = await stage.publishAt(perSecond, ms)
  const took = performance.now() - started
  try {
    await stage.drained(patience / 1000)
  } catch (error) {
    if (error instanceof Cannot) return undefined
    throw error
  }
  const { p99 } = await stage.seen()
  const { rss } = await stage.usage()
  const inTime = published >= (perSecond * ms) / 1000 - 1 && took < ms + patience / 1000
  return inTime && p99 <= patience ? { perSecond, p99, rss } : undefined
}
