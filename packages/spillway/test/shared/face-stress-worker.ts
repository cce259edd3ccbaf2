import { parentPort, workerData } from 'node:worker_threads'
import { openSharedBuffer, type SharedHandle } from '../../src/shared/index.ts'

export interface FaceAccount {
  readonly got: number
  readonly missed: number
  readonly lost: number
  /** The last index that was got or told as gone, and how many times one did not follow the one before. */
  readonly index: number
  readonly jumps: number
}

const { handle, how } = workerData as { handle: SharedHandle; how: 'loop' | 'blocking' }
const subscription = openSharedBuffer(handle).subscribe({ onLag: 'skip' })
let [got, missed, index, jumps] = [0, 0, 0, 0]

parentPort?.postMessage('ready')
try {
  for (;;) {
    const batch = how === 'blocking' ? subscription.nextSync() : await subscription.next()
    if (!batch) throw new Error('a wait without a time-out gave nothing')
    if (batch.gap) {
      if (batch.gap.after !== index) jumps++
      missed += batch.index - index
    } else {
      if (batch.index !== index + 1 || batch.events[0]?.payload !== batch.index) jumps++
      got++
    }
    index = batch.index
  }
} catch {
  parentPort?.postMessage({ got, missed, index, jumps, lost: subscription.lost } satisfies FaceAccount)
}
