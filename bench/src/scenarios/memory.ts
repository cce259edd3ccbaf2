import { do_not_optimize } from 'mitata'
import type { BenchEvent, Need, Stream } from '../contender.ts'
import { Gate, settled } from '../gate.ts'
import type { Scenario } from '../scenario.ts'
import { publishMany } from './publish.ts'

type Open = (capacity: number) => Promise<Stream>

/** Bytes in use, in the heap and outside. */
async function usedBytes(): Promise<number> {
  await settled()
  for (let n = 0; n < 3; n++) globalThis.gc?.()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

/** What `make` leaves behind, in bytes. What it gives back stays alive until that is measured. */
async function growth(make: () => unknown): Promise<number> {
  const before = await usedBytes()
  const kept = await make()
  const after = await usedBytes()
  do_not_optimize(kept)
  return after - before
}

async function perEvent(open: Open): Promise<number> {
  const events = Array.from({ length: 200_000 }, (_, n): BenchEvent => ({ index: n + 1 }))
  const keep = (count: number) =>
    growth(async () => {
      const stream = await open(count)
      for (let n = 0; n < count; n++) {
        stream.publish(events[n] as BenchEvent)
        if (n % 500 === 0) await settled(1)
      }
      return stream
    })
  await keep(1000)
  // The slope, so that what a stream costs once does not count.
  const few = await keep(100_000)
  const many = await keep(200_000)
  do_not_optimize(events)
  return (many - few) / 100_000
}

async function perReader(open: Open, start: (stream: Stream, readers: number, gate: Gate) => unknown): Promise<number> {
  const readers = 10_000
  const attempt = async (count: number) => {
    const stream = await open(1000)
    const gate = new Gate()
    stream.publish({ index: 1 })
    const bytes = await growth(() => start(stream, count, gate))
    // Each of them must be there, waiting, and not just optimised away.
    gate.expect(count)
    stream.publish({ index: 2 })
    await gate.passed
    return bytes / count
  }
  await attempt(100)
  return attempt(readers)
}

const readers = [
  {
    id: 'callback',
    needs: 'follow' as Need,
    contenders: ['spillway', 'EventEmitter', 'RxJS Subject', 'floor: array of callbacks'],
    start: (stream: Stream, count: number, gate: Gate): unknown => stream.follow?.(count, gate),
  },
  {
    id: 'waiting',
    needs: 'read' as Need,
    contenders: ['spillway', 'spillway broker', 'events.on', 'Effect PubSub', 'floor: shared promise'],
    start: (stream: Stream, count: number, gate: Gate): unknown => stream.read?.(count, gate),
  },
  {
    id: 'cancellable',
    needs: 'readUntil' as Need,
    contenders: ['spillway', 'spillway broker', 'events.on', 'Effect PubSub', 'floor: own promise'],
    start: (stream: Stream, count: number, gate: Gate): unknown =>
      Array.from({ length: count }, () => {
        const controller = new AbortController()
        stream.readUntil?.(controller.signal, gate).catch(() => {})
        return controller
      }),
  },
]

const stalledEvents = 1_000_000
const unbounded = 20 * 2 ** 20

export const memory: readonly Scenario[] = [
  {
    id: 'bytes-event',
    title: 'Bytes per kept event, beside the event itself',
    unit: 'B',
    needs: 'replay',
    contenders: ['spillway', 'spillway broker', 'RxJS ReplaySubject', 'Effect PubSub', 'floor: array push'],
    measure: async (open) => ({ value: await perEvent(open) }),
  },
  ...readers.map(
    ({ id, needs, contenders, start }): Scenario => ({
      id: `bytes-${id}`,
      title: `Bytes per ${id} reader`,
      unit: 'B',
      needs,
      contenders,
      measure: async (open) => ({ value: await perReader(open, start) }),
    }),
  ),
  {
    id: 'stalled',
    title: '100 stalled readers, 1,000,000 events, 1,024 kept: growth of the heap',
    unit: 'MB',
    needs: 'stall',
    contenders: ['spillway', 'spillway broker', 'EventEmitter', 'events.on', 'RxJS ReplaySubject', 'Effect PubSub'],
    async measure(open) {
      const stream = await open(1024)
      const stalled = stream.stall?.(100)
      await settled()
      // A full buffer and compiled code are the start, not growth.
      await publishMany(stream, 20_000)
      const before = await usedBytes()
      let published = 0
      let grown = 0
      while (published < stalledEvents && grown < unbounded) {
        const part = Math.min(published === 0 ? 10_000 : 330_000, stalledEvents - published)
        for (let n = 1; n <= part; n++) {
          stream.publish({ index: 20_000 + published + n })
          if (n % 500 === 0) await settled(1)
        }
        published += part
        grown = (await usedBytes()) - before
      }
      do_not_optimize(stalled)
      return { value: grown / 1e6, extra: { published } }
    },
  },
]
