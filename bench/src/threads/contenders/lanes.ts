import { BroadcastChannel, type Worker } from 'node:worker_threads'
import { createBroker } from 'spillway'
import { createSharedBuffer } from 'spillway/shared'
import { eventsOf, payloadsOf, textsOf } from '../payload.ts'
import type { ReaderJob } from '../reader.ts'

/** How records get from this thread to workers. */
export type Way =
  | { readonly kind: 'ring'; readonly each: boolean; readonly waits: 'blocking' | 'loop' }
  | { readonly kind: 'face'; readonly waits: 'blocking' | 'loop' }
  | { readonly kind: 'strings' | 'objects' | 'channel' }

/** Where records go, and their end. */
export interface Lane {
  readonly source: ReaderJob['source']
  send(n: number, workers: readonly Worker[]): void
  /** Settles once what was sent is on its way, where that takes turns of the event loop. */
  sent?(): Promise<unknown>
  end(workers: readonly Worker[]): void | Promise<void>
}

/** `bytes`: of a ring, where there is one. */
export async function laneOf(way: Way, sizes: readonly number[], bytes: number): Promise<Lane> {
  if (way.kind === 'ring') return ring(way, sizes, bytes)
  if (way.kind === 'face') return face(way.waits, sizes, bytes)
  if (way.kind === 'channel') return channel(sizes)
  return port(way.kind === 'strings' ? textsOf(payloadsOf(sizes)) : eventsOf(sizes))
}

async function ring({ each, waits }: Way & { kind: 'ring' }, sizes: readonly number[], bytes: number): Promise<Lane> {
  const { layout, newWriter } = await import('../ring.ts')
  const { createRing, recordType } = layout
  const payloads = payloadsOf(sizes)
  const mask = sizes.length - 1
  const handle = createRing({ bytes })
  const writer = await newWriter(handle)
  let index = 0
  return {
    source: { kind: 'ring', handle, waits },
    send(n) {
      writer.append(payloads[n & mask] as Uint8Array, ++index, recordType.batch, 1, 1, 1)
      if (each) writer.publish()
    },
    end() {
      writer.append(new Uint8Array(0), index, recordType.closed, 0, 0, 0)
      writer.publish()
    },
  }
}

/** What users see of the ring. Whatever the writer sends between two looks at its readers is in flight together. */
function face(waits: 'blocking' | 'loop', sizes: readonly number[], bytes: number): Lane {
  const events = eventsOf(sizes)
  const mask = sizes.length - 1
  const broker = createBroker()
  const buffer = createSharedBuffer({ bytes })
  buffer.feed(broker)
  let last: Promise<unknown> = Promise.resolve()
  return {
    source: { kind: 'face', handle: buffer.handle, waits },
    send(n) {
      last = broker.publish(events[n & mask] as (typeof events)[number])
    },
    sent: () => last,
    async end() {
      await last
      // The broker's end is the last that is fed.
      await broker.close()
    },
  }
}

function port(messages: readonly unknown[]): Lane {
  const mask = messages.length - 1
  return {
    source: { kind: 'port' },
    send(n, workers) {
      const message = messages[n & mask]
      for (const worker of workers) worker.postMessage(message)
    },
    end(workers) {
      for (const worker of workers) worker.postMessage(null)
    },
  }
}

function channel(sizes: readonly number[]): Lane {
  const texts = textsOf(payloadsOf(sizes))
  const mask = sizes.length - 1
  const name = `bench ${process.pid}`
  const all = new BroadcastChannel(name)
  return {
    source: { kind: 'channel', name },
    send: (n) => all.postMessage(texts[n & mask]),
    end() {
      all.postMessage(null)
      all.close()
    },
  }
}
