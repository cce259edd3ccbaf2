import { Gate, settled } from '../gate.ts'
import type { Scenario } from '../scenario.ts'
import { median } from '../stats.ts'
import { publishMany } from './publish.ts'

const kept = 100_000

export const replay: readonly Scenario[] = [
  {
    id: 'replay',
    title: 'Replay of 100,000 kept events by a late reader, per event',
    unit: 'ns',
    needs: 'replay',
    contenders: [
      'spillway',
      'spillway broker',
      'EventEmitter',
      'events.on',
      'RxJS ReplaySubject',
      'Effect PubSub',
      'floor: array push',
    ],
    async measure(open, ms) {
      const stream = await open(kept)
      await publishMany(stream, kept)
      const times: number[] = []
      const gate = new Gate()
      const end = performance.now() + ms * 1.5
      while (performance.now() < end || times.length < 5) {
        gate.expect(kept)
        const before = performance.now()
        stream.replay?.(gate)
        await gate.passed
        times.push(performance.now() - before)
        await settled(1)
      }
      if (gate.sum !== ((kept * (kept + 1)) / 2) * times.length) throw new Error('The replay was not complete.')
      return { value: (median(times.slice(1)) * 1e6) / kept, extra: { samples: times.length - 1 } }
    },
  },
]
