import { inThread, ours, type SocketScenario } from '../scenario.ts'
import { Stage } from '../stage.ts'

const clients = 200
const perSecond = 1000

export const busy: readonly SocketScenario[] = [
  {
    id: 'busy-200',
    title: '1,000 events/s to 200 clients: how much of its time the publishing thread is busy',
    unit: '%',
    shows: ['deliveries/s', 'p50 ms', 'p99 ms'],
    contenders: [ours, inThread],
    async measure(contender, quick) {
      const stage = await Stage.open(contender)
      try {
        await stage.connect(clients)
        await stage.publishAt(perSecond, quick ? 300 : 1000)
        await stage.drained(20_000)
        await stage.seen()
        await stage.busy()
        const started = performance.now()
        await stage.publishAt(perSecond, quick ? 500 : 4000)
        const value = await stage.busy()
        await stage.drained(20_000)
        const seconds = (performance.now() - started) / 1000
        const { events, p50, p99 } = await stage.seen()
        return { value, extra: { 'deliveries/s': events / seconds, 'p50 ms': p50 / 1000, 'p99 ms': p99 / 1000 } }
      } finally {
        await stage.close()
      }
    },
  },
]
