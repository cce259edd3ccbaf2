import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { payloadsOf, sizesOf } from '../payload.ts'
import { layout, newWriter, type RingWriter } from '../ring.ts'

const { createRing, recordType } = layout
const bytes = 2 ** 22
const warmup = 100
const [payload = new Uint8Array(0)] = payloadsOf(sizesOf(64))

/** Nanoseconds for an append and its part of publishing: with nobody, and with a reader that does not come to read. */
export async function appendBeside(each: boolean, ms: number): Promise<{ alone: number; stalled: number }> {
  const [handle, other] = [createRing({ bytes }), createRing({ bytes })]
  const [beside, alone] = [await newWriter(handle), await newWriter(other)]
  const worker = new Worker(new URL('../stalled.js', import.meta.url), { workerData: handle })
  await once(worker, 'message')
  appendFor(alone, each, warmup)
  appendFor(beside, each, warmup)
  // In turns: what the machine does else befalls both.
  const times = { alone: 0, stalled: 0 }
  const turns = 10
  for (let n = 0; n < turns; n++) {
    times.alone += appendFor(alone, each, ms / turns) / turns
    times.stalled += appendFor(beside, each, ms / turns) / turns
  }
  await worker.terminate()
  return times
}

function appendFor(writer: RingWriter, each: boolean, ms: number): number {
  const started = performance.now()
  let count = 0
  let now = started
  for (; now - started < ms; now = performance.now()) {
    for (let n = 0; n < 1024; n++) {
      writer.append(payload, ++count, recordType.batch, 1, 1, 1)
      if (each) writer.publish()
    }
  }
  return ((now - started) * 1e6) / count
}
