import { do_not_optimize, measure } from 'mitata'
import type { Scenario } from '../scenario.ts'

/** Indexes of one log follow each other; those of a log that others write to skip, so no place can be told by a subtraction. */
const histories = [
  { id: 'locate', kind: 'events', step: () => 1 },
  { id: 'locate-gaps', kind: 'events with gaps between their indexes', step: () => 1 + Math.floor(Math.random() * 5) },
]

export const locate: readonly Scenario[] = histories.flatMap(({ id, kind, step }) =>
  [1000, 1_000_000].map((kept) => ({
    id: `${id}-${kept}`,
    title: `Find the start among ${kept.toLocaleString('en')} kept ${kind}`,
    unit: 'ns',
    needs: 'locate',
    contenders: ['spillway', 'floor: binary search', 'walk through all'],
    async measure(open, ms) {
      const stream = await open(kept)
      let index = 0
      for (let n = 0; n < kept; n++) {
        index += step()
        stream.publish({ index })
      }
      const wanted = Float64Array.from({ length: 4096 }, () => 1 + Math.floor(Math.random() * index))
      let next = 0
      const { p50, avg } = await measure(() => do_not_optimize(stream.locate?.(wanted[next++ & 4095] as number)), {
        min_cpu_time: ms * 1e6,
        gc: false,
      })
      return { value: p50, extra: { mean: avg } }
    },
  })),
)
