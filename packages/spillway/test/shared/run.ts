// A program for any runtime with worker threads: readers of every kind are woken. Prints what they got, a line each.
import { once } from 'node:events'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { createBroker } from '../../src/core/broker.ts'
import type { Batch } from '../../src/core/event.ts'
import { createSharedBuffer, openSharedBuffer, type SharedHandle } from '../../src/shared/index.ts'

const kinds = ['loop', 'blocking', 'doorbell'] as const

async function publishTo(kind: (typeof kinds)[number]): Promise<void> {
  const broker = createBroker()
  const buffer = createSharedBuffer()
  buffer.feed(broker)
  const worker = new Worker(new URL(import.meta.url), { workerData: { handle: buffer.handle, kind } })
  const exit = once(worker, 'exit')
  await once(worker, 'message')
  for (const key of ['a', 'b']) {
    const answer = once(worker, 'message')
    await broker.publish({ topic: 'Job', type: 'Changed', key })
    console.log(JSON.stringify({ kind, got: (await answer)[0] }))
  }
  buffer.close()
  await exit
  await broker.close()
}

async function read({ handle, kind }: { handle: SharedHandle; kind: (typeof kinds)[number] }): Promise<void> {
  if (kind === 'doorbell') delete (Atomics as { waitAsync?: unknown }).waitAsync
  const subscription = openSharedBuffer(handle).subscribe()
  await subscription.ready
  parentPort?.postMessage('ready')
  for (let n = 0; n < 2; n++) {
    const batch = kind === 'blocking' ? (subscription.nextSync() as Batch) : await subscription.next()
    parentPort?.postMessage(batch.events[0]?.key)
  }
  subscription.close()
  // A channel keeps a thread of Deno alive.
  if (kind === 'doorbell') process.exit()
}

if (isMainThread) for (const kind of kinds) await publishTo(kind)
else await read(workerData)
