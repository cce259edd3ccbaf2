import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type TestContext, test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { createBroker } from '../../src/core/broker.ts'
import { createSharedBuffer } from '../../src/shared/index.ts'
import { createRing, openRing } from '../../src/shared/layout.ts'
import { endOf } from '../../src/shared/reader.ts'
import { seededRandom } from '../support/random.ts'
import { turn } from '../support/waiting.ts'
import type { FaceAccount } from './face-stress-worker.ts'
import type { Account, Job, Kind } from './stress-worker.ts'

const isOldestNode = Number.parseInt(process.versions.node, 10) < 22
/** How many records the writers of this file write in all. */
const total = Number(process.env.SPILLWAY_STRESS_RECORDS ?? (isOldestNode ? 30_000_000 : 300_000_000))

const random = seededRandom('stress')

async function startWorker(t: TestContext, job: Job): Promise<Worker> {
  const worker = new Worker(new URL('./stress-worker.js', import.meta.url), { workerData: job })
  t.after(() => worker.terminate())
  assert.deepEqual(await once(worker, 'message'), ['ready'])
  return worker
}

/** What a reader comes to at its end. */
function accountOf(worker: Worker): Promise<Account> {
  return new Promise((resolve, reject) => {
    worker.on('error', reject)
    worker.on('message', (message: Account | string) => {
      if (typeof message === 'object') resolve(message)
    })
  })
}

function newJob(records: number, bytes: number): Job {
  return { handle: createRing({ bytes }), role: 'write', records, seed: random.below(2 ** 31) }
}

function check(t: TestContext, records: number, started: number, accounts: readonly Account[]): void {
  const seconds = (performance.now() - started) / 1000
  t.diagnostic(`${Math.round(records / seconds)} records/s`)
  for (const { got, lost, torn, losses } of accounts) {
    t.diagnostic(`got ${got}, lost ${lost} in ${losses} losses, torn ${torn}`)
    assert.equal(torn, 0)
    assert.equal(got + lost, records)
  }
}

// The smallest ring is overrun soonest; in larger ones more is read.
const crews: readonly { readonly bytes: number; readonly kinds: readonly Kind[] }[] = [
  { bytes: 2 ** 16, kinds: ['blocking'] },
  { bytes: 2 ** 18, kinds: ['blocking', 'loop'] },
  { bytes: 2 ** 20, kinds: ['blocking', 'slow', 'loop'] },
  { bytes: 2 ** 22, kinds: ['blocking', 'slow', 'loop', 'loop'] },
]

for (const { bytes, kinds } of crews) {
  test(`every record is read whole or counted as lost, exactly: ${kinds.join(', ')}`, async (t) => {
    const job = newJob(Math.floor(total / 6), bytes)
    const readers = await Promise.all(kinds.map((role) => startWorker(t, { ...job, role })))
    const accounts = Promise.all(readers.map(accountOf))
    const writer = await startWorker(t, job)
    const started = performance.now()
    writer.postMessage('go')
    check(t, job.records, started, await accounts)
  })
}

test('readers that are killed while they read and while they wait disturb neither writer nor readers', async (t) => {
  const job = newJob(Math.floor(total / 6), 2 ** 18)
  const survivors = await Promise.all((['blocking', 'loop'] as const).map((role) => startWorker(t, { ...job, role })))
  const accounts = Promise.all(survivors.map(accountOf))
  let isOver = false
  accounts.finally(() => {
    isOver = true
  })
  const waiting = await Promise.all((['blocking', 'loop'] as const).map((role) => startWorker(t, { ...job, role })))
  const writer = await startWorker(t, job)
  const started = performance.now()
  writer.postMessage('go')
  // These may still wait for the first record, or just have been woken.
  await Promise.all(waiting.map((worker) => worker.terminate()))
  let killed = waiting.length
  while (!isOver) {
    const victim = await startWorker(t, { ...job, role: random.oneIn(2) ? 'slow' : 'loop' })
    await victim.terminate()
    killed++
  }
  t.diagnostic(`${killed} readers killed`)
  check(t, job.records, started, await accounts)
})

test('writers that are killed leave nothing half behind: the next one goes on', async (t) => {
  const job = newJob(Math.floor(total / 6), 2 ** 18)
  const ring = openRing(job.handle)
  const readers = await Promise.all((['blocking', 'loop'] as const).map((role) => startWorker(t, { ...job, role })))
  const accounts = Promise.all(readers.map(accountOf))
  const started = performance.now()
  const generations = 8
  for (let generation = 1; generation <= generations; generation++) {
    const writer = await startWorker(t, job)
    const enough = endOf(ring) + random.below((job.records / generations) * 100)
    writer.postMessage('go')
    if (generation === generations) break
    while (endOf(ring) <= enough) await turn()
    await writer.terminate()
  }
  check(t, job.records, started, await accounts)
})

test('every batch of a broker is read in another thread or lies in a gap, exactly', async (t) => {
  const batches = Math.floor(total / 600)
  const broker = createBroker()
  const buffer = createSharedBuffer({ bytes: 2 ** 16 })
  buffer.feed(broker)
  const workers = (['loop', 'loop', 'blocking'] as const).map(
    (how) =>
      new Worker(new URL('./face-stress-worker.js', import.meta.url), { workerData: { handle: buffer.handle, how } }),
  )
  t.after(() => Promise.all(workers.map((worker) => worker.terminate())))
  await Promise.all(workers.map((worker) => once(worker, 'message')))
  const accounts = Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0] as FaceAccount))
  for (let index = 1; index <= batches; index++) {
    await broker.publish({ topic: 'Job', type: 'Changed', key: String(index), payload: index })
  }
  await broker.close()
  for (const { got, missed, lost, index, jumps } of await accounts) {
    t.diagnostic(`got ${got}, told of ${missed}`)
    assert.equal(jumps, 0)
    assert.equal(index, batches)
    assert.equal(got + missed, batches)
    assert.equal(lost, missed)
  }
})
