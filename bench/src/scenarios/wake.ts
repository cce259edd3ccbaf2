import { AsyncLocalStorage } from 'node:async_hooks'
import type { Stream } from '../contender.ts'
import { Gate, settled } from '../gate.ts'
import type { Measured, Scenario } from '../scenario.ts'
import { median } from '../stats.ts'

const callback = [
  'spillway',
  'EventEmitter',
  'RxJS Subject',
  'RxJS ReplaySubject',
  'floor: array of callbacks',
  'floor: push and a microtask',
]
const waiting = ['spillway', 'spillway broker', 'events.on', 'Effect PubSub', 'floor: shared promise']
const cancellable = ['spillway', 'spillway broker', 'events.on', 'Effect PubSub', 'floor: own promise']

type Start = (stream: Stream, readers: number, gate: Gate) => void

const follow: Start = (stream, readers, gate) => stream.follow?.(readers, gate)
const read: Start = (stream, readers, gate) => stream.read?.(readers, gate)
const readUntil: Start = (stream, readers, gate) => {
  for (let n = 0; n < readers; n++) stream.readUntil?.(new AbortController().signal, gate)?.catch(() => {})
}

const faces = [
  { face: 'follow', name: 'callback', start: follow, contenders: callback },
  { face: 'read', name: 'waiting', start: read, contenders: waiting },
  { face: 'readUntil', name: 'cancellable', start: readUntil, contenders: cancellable },
] as const

// How long `publish` keeps its caller. One event per turn of the event loop, as events come in real life: within one
// turn a single reader would find everything in the nearest cache.
const blocked: readonly Scenario[] = faces.flatMap(({ face, name, start, contenders }) =>
  [1, 10_000].map((readers) => ({
    id: `blocked-${name}-${readers}`,
    title: `Publisher blocked, ${readers.toLocaleString('en')} ${name} reader${readers > 1 ? 's' : ''}`,
    unit: 'us' as const,
    needs: face,
    contenders,
    measure: async (open, ms) => {
      const { blocked } = await rounds(await open(1000), start, readers, ms, () => settled(1))
      return { value: median(blocked) / 1e3, extra: { samples: blocked.length } }
    },
  })),
)

const perReader: readonly Scenario[] = [
  { ...faces[0], readers: 1000 },
  { ...faces[1], readers: 1000 },
  { ...faces[1], readers: 10_000 },
  { ...faces[2], readers: 1000 },
].map(({ face, name, start, contenders, readers }) => ({
  id: `wake-${name}-${readers}`,
  title: `Wake, per reader, ${readers.toLocaleString('en')} ${name} readers`,
  unit: 'ns',
  needs: face,
  contenders,
  measure: async (open, ms) => perWake(await rounds(await open(1000), start, readers, ms), readers),
}))

const lastReader: readonly Scenario[] = faces.slice(0, 2).map(({ face, name, start, contenders }) => ({
  id: `last-${name}-1000`,
  title: `Publish to the last of 1,000 ${name} readers, p50`,
  unit: 'us',
  needs: face,
  contenders,
  measure: async (open, ms) => {
    const { arrived } = await rounds(await open(1000), start, 1000, ms, () => settled(1))
    return { value: median(arrived) / 1e3, extra: { samples: arrived.length } }
  },
}))

const context: Scenario = {
  id: 'wake-callback-1000-context',
  title: 'Wake, per reader, 1,000 callback readers, with an AsyncLocalStorage store',
  unit: 'ns',
  needs: 'follow',
  contenders: ['spillway', 'EventEmitter'],
  measure(open, ms) {
    const storage = new AsyncLocalStorage<object>()
    return storage.run({ request: 1 }, async () => perWake(await rounds(await open(1000), follow, 1000, ms), 1000))
  },
}

export const wake: readonly Scenario[] = [...blocked, ...perReader, context, ...lastReader]

interface Rounds {
  /** Nanoseconds until `publish` returned, and until the last reader had the event. */
  readonly blocked: number[]
  readonly arrived: number[]
}

/** Publishes one event at a time, each after all readers have got the one before and after a `rest`, if one is given. */
async function rounds(
  stream: Stream,
  start: Start,
  readers: number,
  ms: number,
  rest?: () => Promise<void>,
): Promise<Rounds> {
  const gate = new Gate()
  start(stream, readers, gate)
  await settled()
  let index = 0
  const result: Rounds = { blocked: [], arrived: [] }
  const begun = performance.now()
  const warm = begun + ms / 2
  const end = warm + ms
  for (let now = begun; now < end || result.arrived.length < 3; now = performance.now()) {
    const event = { index: ++index }
    gate.expect(readers)
    const published = process.hrtime.bigint()
    stream.publish(event)
    const returned = process.hrtime.bigint()
    await gate.passed
    const last = process.hrtime.bigint()
    if (now >= warm) {
      result.blocked.push(Number(returned - published))
      result.arrived.push(Number(last - published))
    }
    if (rest) await rest()
  }
  if (gate.sum !== (readers * index * (index + 1)) / 2) throw new Error('Readers lost events or got them twice.')
  return result
}

// The mean, not the median: what a contender leaves to the garbage collector is part of its price.
function perWake({ arrived }: Rounds, readers: number): Measured {
  const total = arrived.reduce((sum, ns) => sum + ns, 0)
  return { value: total / arrived.length / readers, extra: { samples: arrived.length } }
}
