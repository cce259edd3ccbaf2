import { EventBuffer } from 'spillway'
import type { BenchEvent, Contender, Sink, Stream } from '../contender.ts'

/** The ring in memory: what everything else of the library stands on. */
export const spillway: Contender = { name: 'spillway', kind: 'ours', open }

function open(capacity: number): Stream {
  const buffer = new EventBuffer<BenchEvent>({ capacity })

  async function read(sink: Sink): Promise<void> {
    for await (const { batches } of buffer.read()) takeAll(batches, sink)
  }

  return {
    publish: (event) => buffer.append(event),
    follow(readers, sink) {
      for (let n = 0; n < readers; n++) {
        buffer.follow(({ batches }) => takeAll(batches, sink))
      }
    },
    read(readers, sink) {
      for (let n = 0; n < readers; n++) void read(sink)
    },
    async readUntil(signal, sink) {
      for await (const { batches } of buffer.read({ signal })) takeAll(batches, sink)
    },
    async replay(sink) {
      for await (const { batches } of buffer.read({ from: 'earliest' })) {
        takeAll(batches, sink)
        if (sink.left === 0) break
      }
    },
    locate: (index) => buffer.indexAt(buffer.locate(index - 1).place + 1),
    // Half of them pull, half hold an item, as the original's readers do.
    stall: (readers) =>
      Array.from({ length: readers }, (_, n) => {
        if (n % 2 === 0) return buffer.tail
        const reader = buffer.read()
        void reader.next()
        return reader
      }),
    match(readers, sink) {
      for (let key = 0; key < readers; key++) {
        buffer.follow(({ batches }) => {
          for (const event of batches) if (event.payload === key) sink.take(event)
        })
      }
      let index = 0
      return (key) => buffer.append({ index: ++index, payload: key })
    },
  }
}

function takeAll(batches: readonly BenchEvent[], sink: Sink): void {
  for (const event of batches) sink.take(event)
}
