import { type MessagePort, parentPort } from 'node:worker_threads'
import { type MemoryLogOptions, memoryLog } from '../../src/core/memory-log.ts'
import { shareLog } from '../../src/shared/index.ts'

/** What is asked of this thread. */
export interface LogWanted {
  readonly limits: MemoryLogOptions
  /** The end of the log's channel that stays here. */
  readonly port: MessagePort
  /** Where the handle goes. */
  readonly answer: MessagePort
  /** Set to 1 when it has gone there: whoever waits does so without an event loop. */
  readonly done: Int32Array
}

// Owns the logs of a test process whose own thread only reads them.
parentPort?.on('message', ({ limits, port, answer, done }: LogWanted) => {
  answer.postMessage(shareLog(memoryLog(limits)).connect(port))
  Atomics.store(done, 0, 1)
  Atomics.notify(done, 0)
})
