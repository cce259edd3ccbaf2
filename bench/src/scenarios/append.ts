import { measure } from 'mitata'
import type { BenchEvent } from '../contender.ts'
import type { Scenario } from '../scenario.ts'

const contenders = [
  'spillway',
  'spillway broker',
  'EventEmitter',
  'RxJS ReplaySubject',
  'Effect PubSub',
  'floor: array push',
]

export const append: readonly Scenario[] = [
  {
    id: 'append',
    title: 'Append, no reader, 1,000 kept',
    unit: 'ns',
    needs: 'append',
    contenders,
    async measure(open, ms) {
      const stream = await open(1000)
      // Made before, or the price of an object would hide the price of keeping it.
      const events = Array.from({ length: 1024 }, (): BenchEvent => ({ index: 1 }))
      let next = 0
      const { p50, avg } = await measure(() => stream.publish(events[next++ & 1023] as BenchEvent), {
        min_cpu_time: ms * 1e6,
      })
      return { value: p50, extra: { mean: avg } }
    },
  },
]
