import { MessageChannel, receiveMessageOnPort, Worker } from 'node:worker_threads'
import { systemClock } from '../../src/core/clock.ts'
import type { Log } from '../../src/core/log.ts'
import { type MemoryLogOptions, memoryLog as memoryLogOf } from '../../src/core/memory-log.ts'
import { openSharedLog, type SharedLogHandle, shareLog } from '../../src/shared/index.ts'
import type { LogWanted } from './log-owner.ts'

let owner: Worker | undefined

/** A log as `memoryLog` has it, in another thread; in this one where the clock is the test's, which no other thread has. */
export function memoryLog({ clock = systemClock, ...limits }: MemoryLogOptions = {}): Log {
  const { port1, port2 } = new MessageChannel()
  if (clock !== systemClock) {
    const here = shareLog(memoryLogOf({ ...limits, clock }))
    return openSharedLog(here.connect(port1), port2)
  }
  owner ??= newOwner()
  const answer = new MessageChannel()
  const done = new Int32Array(new SharedArrayBuffer(4))
  const wanted: LogWanted = { limits, port: port1, answer: answer.port1, done }
  owner.postMessage(wanted, [port1, answer.port1])
  Atomics.wait(done, 0, 0)
  const handle = receiveMessageOnPort(answer.port2)?.message as SharedLogHandle
  answer.port2.close()
  return openSharedLog(handle, port2)
}

function newOwner(): Worker {
  const worker = new Worker(new URL('log-owner.js', import.meta.url))
  worker.unref()
  return worker
}
