import { nodeHttp, ours, perEvent, type SocketScenario } from '../scenario.ts'
import { Stage } from '../stage.ts'

export const latency: readonly SocketScenario[] = [
  {
    id: 'latency-1000',
    title: '20 events/s to 1,000 clients: time to the client, 99th percentile',
    unit: 'ms',
    shows: ['p50 ms', 'max ms'],
    contenders: [ours, nodeHttp, 'better-sse', 'ws', perEvent, 'floor: C, epoll, a write per event'],
    async measure(contender, quick) {
      const stage = await Stage.open(contender)
      try {
        await stage.connect(1000)
        for (let n = 0; n < 30; n++) await stage.deliver()
        await stage.seen()
        await stage.publishAt(20, quick ? 500 : 2500)
        await stage.drained(5000)
        const { p50, p99, max } = await stage.seen()
        return { value: p99 / 1000, extra: { 'p50 ms': p50 / 1000, 'max ms': max / 1000 } }
      } finally {
        await stage.close()
      }
    },
  },
]
