import { PerformanceObserver } from 'node:perf_hooks'
import { settled } from '../gate.ts'
import type { Scenario } from '../scenario.ts'
import { publishMany } from './publish.ts'

const kept = 100_000

export const collector: readonly Scenario[] = [
  {
    id: 'gc-pause',
    title: 'Longest pause of the garbage collector, 100,000 events kept, 200,000 more published',
    unit: 'ms',
    needs: 'replay',
    contenders: ['spillway', 'spillway broker', 'RxJS ReplaySubject', 'floor: bytes in one block'],
    async measure(open) {
      const stream = await open(kept)
      let longest = 0
      let pauses = 0
      let total = 0
      const observer = new PerformanceObserver((list) => {
        for (const { duration } of list.getEntries()) {
          longest = Math.max(longest, duration)
          total += duration
          pauses++
        }
      })
      await publishMany(stream, kept, order)
      observer.observe({ entryTypes: ['gc'] })
      for (let n = 1; n <= 2 * kept; n++) {
        stream.publish({ index: kept + n, payload: order(kept + n) })
        if (n % 500 === 0) await settled(1)
      }
      await settled()
      observer.disconnect()
      stream.publish({ index: 3 * kept + 1, payload: null })
      return { value: longest, extra: { pauses, total } }
    },
  },
]

/** About 350 bytes of JSON in a dozen objects. */
function order(n: number): unknown {
  return {
    id: `A${n}`,
    customer: {
      name: `Customer ${n}`,
      email: `c${n}@example.com`,
      address: { street: `${n} Main St`, city: 'Springfield' },
    },
    items: [1, 2, 3].map((line) => ({
      sku: `S${n}-${line}`,
      quantity: line,
      price: { amount: n * line, currency: 'EUR' },
    })),
    tags: ['new', 'web', `batch-${n}`],
  }
}
