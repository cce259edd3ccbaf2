import { Gate, settled } from '../gate.ts'
import type { Scenario } from '../scenario.ts'
import { median } from '../stats.ts'

const readers = 10_000

export const match: readonly Scenario[] = [
  {
    id: 'match',
    title: '10,000 readers, one wants the event: publish until it is there and nobody is busy',
    unit: 'us',
    needs: 'match',
    contenders: ['spillway broker', 'spillway broker, filter in each', 'spillway', 'EventEmitter'],
    async measure(open, ms) {
      const stream = await open(1000)
      const gate = new Gate()
      const publish = stream.match?.(readers, gate)
      await settled()
      const times: number[] = []
      const end = performance.now() + ms * 1.5
      while (performance.now() < end || times.length < 20) {
        const key = Math.floor(Math.random() * readers)
        gate.expect(1)
        const before = process.hrtime.bigint()
        publish?.(key)
        await gate.passed
        times.push(Number(process.hrtime.bigint() - before))
      }
      const kept = times.slice(Math.floor(times.length / 3))
      return { value: median(kept) / 1e3, extra: { samples: kept.length } }
    },
  },
]
