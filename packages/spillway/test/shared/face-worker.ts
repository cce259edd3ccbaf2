import { parentPort, workerData } from 'node:worker_threads'
import type { SpillwayError } from '../../src/core/errors.ts'
import type { Batch } from '../../src/core/event.ts'
import { openSharedBuffer, type SharedHandle } from '../../src/shared/index.ts'

const { handle, how } = workerData as { handle: SharedHandle; how: 'loop' | 'blocking' | 'doorbell' }
if (how === 'doorbell') delete (Atomics as { waitAsync?: unknown }).waitAsync

const subscription = openSharedBuffer(handle).subscribe()
await subscription.ready
const tell = (message: unknown) => parentPort?.postMessage(message)
tell('ready')
try {
  for (;;) {
    const batch = how === 'blocking' ? (subscription.nextSync() as Batch) : await subscription.next()
    tell(batch.events.map(({ key }) => key))
  }
} catch (error) {
  tell((error as SpillwayError).code)
}
