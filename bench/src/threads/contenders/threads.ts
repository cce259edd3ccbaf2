import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { now } from '../clock.ts'
import type { Account, Delays, Outcome, Stream } from '../contender.ts'
import { Pacer } from '../pacer.ts'
import { sizesOf } from '../payload.ts'
import type { ReaderJob } from '../reader.ts'
import { type Lane, laneOf, type Way } from './lanes.ts'

/** After so many records the writer looks at the clock and at its readers. */
const group = 64

/** Writes what `stream` says in this thread, and lets workers read it. */
export async function streamTo(way: Way, stream: Stream): Promise<Outcome> {
  const { readers, paced, ahead, records, warmup, ms } = stream
  const pacer = new Pacer(readers, ahead)
  const lane = await laneOf(way, stream.sizes, stream.ring)
  const { workers, accounts } = await startReaders(lane, stream, pacer.cells, new Float64Array(0))
  const step = paced ? Math.max(1, Math.min(group, ahead >> 2)) : group
  const most = records || Number.POSITIVE_INFINITY
  const end = performance.now() + (records ? Number.POSITIVE_INFINITY : warmup + ms)
  let started = performance.now()
  let before = 0
  let isWarm = false
  let written = 0
  const warmAt = started + warmup
  while (written < most) {
    if (paced) pacer.wait(written + step)
    const until = Math.min(written + step, most)
    while (written < until) lane.send(written++, workers)
    if (lane.sent) await lane.sent()
    const time = performance.now()
    if (time >= end) break
    if (!isWarm && time >= warmAt) {
      isWarm = true
      started = time
      before = pacer.slowest
    }
  }
  await lane.end(workers)
  const all = await accounts
  const rate = (written - before) / ((performance.now() - started) / 1000)
  await Promise.all(workers.map((worker) => worker.terminate()))
  return { records: written, rate, accounts: all }
}

/** Writes a record each millisecond to one reader. */
export async function wakeBy(way: Way, count: number, size: number): Promise<Delays> {
  const times = new Float64Array(new SharedArrayBuffer(8 * count))
  const idle = new Int32Array(new SharedArrayBuffer(4))
  const sizes = sizesOf(size)
  const lane = await laneOf(way, sizes, 2 ** 22)
  const read = { sizes, readers: 1, thorough: false }
  const { workers, accounts } = await startReaders(lane, read, new Pacer(1, 0).cells, times)
  for (let n = 0; n < count; n++) {
    Atomics.wait(idle, 0, 0, 1)
    times[n] = now()
    lane.send(n, workers)
  }
  await lane.end(workers)
  const [account] = await accounts
  if (account?.got !== count || account.wrong > 0) throw new Error(`The reader came to ${JSON.stringify(account)}.`)
  // The first ones find code that has not run yet.
  const sorted = times.slice(count >> 2).sort()
  const quantile = (part: number) => sorted[Math.floor(sorted.length * part)] as number
  return { p50: quantile(0.5), p99: quantile(0.99) }
}

async function startReaders(
  { source }: Lane,
  { readers, sizes, thorough }: Pick<Stream, 'readers' | 'sizes' | 'thorough'>,
  progress: Int32Array,
  times: Float64Array,
): Promise<{ workers: Worker[]; accounts: Promise<Account[]> }> {
  const started = Array.from({ length: readers }, (_, reader) => {
    const workerData: ReaderJob = { source, reader, sizes, thorough, progress, times }
    const worker = new Worker(new URL('../reader.js', import.meta.url), { workerData })
    const ready = once(worker, 'message')
    const account = new Promise<Account>((resolve, reject) => {
      worker.on('message', (message: Account | 'ready') => message !== 'ready' && resolve(message))
      worker.on('error', reject)
    })
    return { worker, ready, account }
  })
  await Promise.all(started.map(({ ready }) => ready))
  return {
    workers: started.map(({ worker }) => worker),
    accounts: Promise.all(started.map(({ account }) => account)),
  }
}
