import type { BenchEvent, Contender, Face, Need, Sink, Stream } from './contender.ts'
import { settled } from './gate.ts'

const readers = 10
const events = 100

/** Runs a contender's face on a small scale. Answers why it cannot do what a scenario takes for granted, if so. */
export async function conformance(contender: Contender, need: Need): Promise<string | undefined> {
  const stream = await contender.open(1000)
  if (need === 'append') return undefined
  if (!stream[need]) return `has no ${faceNames[need]}`
  // A floor does the least there is: it may lose what is published while its readers are busy.
  return contender.kind === 'floor' ? undefined : checks[need](stream)
}

const faceNames: Readonly<Record<Face, string>> = {
  follow: 'callback readers',
  read: 'waiting readers',
  readUntil: 'cancellable readers',
  replay: 'history',
  locate: 'search by index',
  stall: 'readers that pull: it pushes, whether they are ready or not',
  match: 'readers by key',
}

type Check = (stream: Stream) => Promise<string | undefined>

const checks: Readonly<Record<Face, Check>> = {
  follow: (stream) => everyReader(stream, (sink) => stream.follow?.(1, sink)),
  read: (stream) => everyReader(stream, (sink) => stream.read?.(1, sink)),
  readUntil: (stream) =>
    everyReader(stream, (sink) => {
      stream.readUntil?.(new AbortController().signal, sink).catch(() => {})
    }),
  async stall(stream) {
    const stalled = stream.stall?.(readers)
    const answer = stream.read ? await checks.read(stream) : undefined
    return stalled ? answer : 'gave no readers back'
  },
  async replay(stream) {
    const sink = new Recorder(events)
    for (let index = 1; index <= events; index++) stream.publish({ index })
    await settled()
    stream.replay?.(sink)
    await settled(20)
    return sink.complaint('a late reader')
  },
  async locate(stream) {
    for (let n = 1; n <= events; n++) stream.publish({ index: n * 10 })
    for (let index = 1; index <= events * 10; index++) {
      const found = stream.locate?.(index)
      if (found !== Math.ceil(index / 10) * 10) return `looked for ${index} and found ${found}`
    }
    return undefined
  },
  async match(stream) {
    const sink = new Recorder(events)
    const publish = stream.match?.(readers, sink)
    await settled()
    for (let n = 0; n < events; n++) {
      publish?.(n % readers)
      await settled(1)
    }
    await settled(20)
    return sink.complaint('readers of one key each')
  },
}

async function everyReader(stream: Stream, start: (sink: Sink) => void): Promise<string | undefined> {
  const sinks = Array.from({ length: readers }, () => new Recorder(events))
  sinks.forEach(start)
  await settled()
  for (let index = 1; index <= events; index++) {
    stream.publish({ index })
    // Some come in bursts.
    if (index % 7 === 0 || index > events / 2) await settled(1)
  }
  await settled(20)
  return sinks.map((sink) => sink.complaint('a reader')).find((complaint) => complaint !== undefined)
}

class Recorder implements Sink {
  readonly #seen: number[] = []
  readonly #expected: number

  constructor(expected: number) {
    this.#expected = expected
  }

  get left(): number {
    return this.#expected - this.#seen.length
  }

  take({ index }: BenchEvent): void {
    this.#seen.push(index)
  }

  /** What is wrong if not every event came, once, in order. */
  complaint(who: string): string | undefined {
    if (this.left !== 0) return `${who} got ${this.#seen.length} of ${this.#expected} events`
    const wrong = this.#seen.findIndex((index, at) => index !== at + 1)
    return wrong < 0 ? undefined : `${who} got ${this.#seen[wrong]} as event ${wrong + 1}`
  }
}
