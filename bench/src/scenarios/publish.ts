import type { Stream } from '../contender.ts'

/** Publishes events 1 to `events`, a few per turn of the event loop, so that readers that wait can follow. */
export async function publishMany(stream: Stream, events: number, payload?: (n: number) => unknown): Promise<void> {
  for (let n = 1; n <= events; n++) {
    stream.publish(payload ? { index: n, payload: payload(n) } : { index: n })
    if (n % 500 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
}
