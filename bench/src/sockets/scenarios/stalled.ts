import { nodeHttp, ours, perEvent, type SocketScenario } from '../scenario.ts'
import { Stage } from '../stage.ts'

const clients = 1000
const stalledClients = 100
/** More than the kernel keeps for a connection that takes nothing: 0.3 MB and more, whatever is put around an event. */
const events = 1200
const burst = 10

export const stalled: readonly SocketScenario[] = [
  {
    id: 'stalled',
    title: '900 clients, then 100 more that read nothing and 1,200 events: memory of the server for each stalled one',
    unit: 'kB',
    shows: ['p99 ms', 'p99 before ms', 'p99 factor'],
    contenders: [ours, nodeHttp, 'better-sse', 'ws', perEvent],
    async measure(contender, quick) {
      const stage = await Stage.open(contender)
      const count = quick ? events / 5 : events
      try {
        await stage.connect(clients - stalledClients)
        // More of the same before, so that a history is full and only what is kept for the stalled ones is new.
        await flood(stage, 2 * count)
        const before = await tail(stage, quick)
        const rssBefore = await stage.memory()
        await stage.connect(stalledClients, { stalled: true })
        await flood(stage, count)
        const after = await tail(stage, quick)
        const grown = (await stage.memory()) - rssBefore
        return {
          value: grown / stalledClients / 1000,
          extra: { 'p99 ms': after / 1000, 'p99 before ms': before / 1000, 'p99 factor': after / before },
        }
      } finally {
        await stage.close()
      }
    },
  },
]

async function flood(stage: Stage, count: number): Promise<void> {
  for (let n = 0; n < count; n += burst) await stage.deliver(burst)
}

/** The 99th percentile of those who read, at 20 events/s. */
async function tail(stage: Stage, quick: boolean): Promise<number> {
  await stage.seen()
  await stage.publishAt(20, quick ? 500 : 1500)
  await stage.drained(5000)
  return (await stage.seen()).p99
}
