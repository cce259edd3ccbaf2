import { readdirSync, statSync } from 'node:fs'
import { createServer } from 'node:http'
import path from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { Worker } from 'node:worker_threads'
import { settled } from '../gate.ts'
import { listen } from '../sockets/servers/listen.ts'
import { median } from '../stats.ts'
import type { DiskContender, DiskStore } from './contender.ts'
import { buffer, file, forProcess, memory, ours, plain } from './contenders.ts'
import { eventBytes, eventTexts } from './event.ts'
import type { DiskScenario } from './scenario.ts'

const writers = [ours, forProcess, plain, file]
const replayed = 200_000
const opened = 1_000_000
const replays = 3

export const diskScenarios: readonly DiskScenario[] = [
  durable('1', 'Stored one by one', 1, 1),
  durable('100', '100 in flight (by hand: groups of 100)', 100, 1),
  durable('1000', 'Groups of 1,000', 1, 1000),
  {
    id: 'replay',
    title: 'Replay of 200,000 batches by one reader in the process',
    unit: '/s',
    more: true,
    contenders: [ours, memory, buffer, plain, file],
    events: replayed,
    measure: async (contender, { filled }, events) => {
      const store = await openFilled(contender, filled, events)
      const times: number[] = []
      for (let n = 0; n < replays; n++) {
        let count = 0
        const started = performance.now()
        await store.replay(() => count++)
        times.push(performance.now() - started)
        if (count !== events) throw new Error(`The replay gave ${count} of ${events}.`)
      }
      await store.close()
      return { value: events / (median(times) / 1000) }
    },
  },
  {
    id: 'replay-socket',
    title: 'Replay of 200,000 batches to one socket (SSE)',
    unit: '/s',
    more: true,
    contenders: [ours, memory, buffer],
    events: replayed,
    measure: async (contender, { filled }, events) => {
      const store = await openFilled(contender, filled, events)
      const { toNodeHandler } = await import('spillway/node')
      if (!store.broker) throw new Error(`${contender.name} has no sockets.`)
      const port = await listen(createServer(toNodeHandler(store.broker)))
      const times: number[] = []
      for (let n = 0; n < replays; n++) times.push(await readBySocket(port, events))
      return { value: events / (median(times) / 1000) }
    },
  },
  {
    id: 'open',
    title: "Open Spillway's file of 1,000,000 batches (by hand: and find the newest)",
    unit: 'ms',
    contenders: [ours, plain],
    events: opened,
    fileOf: ours,
    measure: async (contender, { filled }) => {
      // Loading modules is not opening a file.
      if (contender.joins) await import('./contenders/spillway.ts')
      const { DatabaseSync } = await import('node:sqlite')
      const started = performance.now()
      if (contender.joins) {
        const store = await contender.open(filled)
        const value = performance.now() - started
        await store.close()
        return { value }
      }
      const db = new DatabaseSync(filled)
      db.prepare('SELECT max(idx) FROM batches').get()
      const value = performance.now() - started
      db.close()
      return { value }
    },
  },
  {
    id: 'delay',
    title: 'Event loop delay p99 of the publishing thread, 100 in flight',
    unit: 'ms',
    shows: ['commit ms', 'p99 in commits'],
    contenders: [ours, forProcess, plain, file],
    measure: async (contender, { path, quick }) => {
      const store = await contender.open(path)
      const commits: number[] = []
      const end = performance.now() + (quick ? 50 : 300)
      while (performance.now() < end) {
        const started = performance.now()
        await store.append(eventTexts(1, 1))
        commits.push(performance.now() - started)
      }
      await appendFor(store, contender, 100, 1, 100)
      const histogram = monitorEventLoopDelay({ resolution: 1 })
      histogram.enable()
      await appendFor(store, contender, 100, 1, quick ? 100 : 1000)
      histogram.disable()
      await store.close()
      const commit = median(commits)
      // It measures from one look to the next, which are a millisecond apart anyway.
      const p99 = Math.max(0, histogram.percentile(99) / 1e6 - 1)
      return { value: p99, extra: { 'commit ms': commit, 'p99 in commits': p99 / commit } }
    },
  },
  {
    id: 'size',
    title: `Size of the file after 200,000 batches of ${eventBytes} B, per batch`,
    unit: 'B',
    contenders: [ours, plain, file],
    events: replayed,
    measure: async (_contender, { filled }, events) => ({ value: sizeOf(filled) / events }),
  },
]

function durable(id: string, title: string, publishers: number, group: number): DiskScenario {
  return {
    id: `durable-${id}`,
    title: `${title}: durable appends`,
    unit: '/s',
    more: true,
    contenders: writers,
    measure: async (contender, { path, quick }) => {
      const store = await contender.open(path)
      await appendFor(store, contender, publishers, group, quick ? 20 : 150)
      const value = await appendFor(store, contender, publishers, group, quick ? 50 : 800)
      await store.close()
      return { value }
    },
  }
}

/** Publishers that append group after group, as fast as they are stored. Gives events per second. */
async function appendFor(
  store: DiskStore,
  { joins }: DiskContender,
  publishers: number,
  group: number,
  ms: number,
): Promise<number> {
  const size = joins ? group : publishers * group
  let count = 0
  const started = performance.now()
  const publish = async () => {
    while (performance.now() - started < ms) {
      await store.append(eventTexts(count + 1, size))
      // Others want the thread as well.
      if (!joins) await settled(1)
      count += size
    }
  }
  await Promise.all(Array.from({ length: joins ? publishers : 1 }, publish))
  return count / ((performance.now() - started) / 1000)
}

/** Fills a new store. */
export async function fill(contender: DiskContender, path: string, events: number): Promise<DiskStore> {
  const store = await contender.open(path)
  const group = 10_000
  for (let n = 0; n < events; n += group) await store.append(eventTexts(n + 1, Math.min(group, events - n)))
  return store
}

const openFilled = (contender: DiskContender, filled: string, events: number): Promise<DiskStore> => {
  return contender.inMemory ? fill(contender, filled, events) : contender.open(filled)
}

function readBySocket(port: number, count: number): Promise<number> {
  const worker = new Worker(new URL('./client.js', import.meta.url), { workerData: { port, count } })
  return new Promise((resolve, reject) => {
    worker.on('message', ({ ms, found }) => {
      if (found === count) resolve(ms)
      else reject(new Error(`The socket carried ${found} of ${count}.`))
    })
    worker.on('error', reject)
  })
}

/** All files that belong to it. */
function sizeOf(filled: string): number {
  const folder = path.dirname(filled)
  return readdirSync(folder).reduce((sum, name) => sum + statSync(path.join(folder, name)).size, 0)
}
