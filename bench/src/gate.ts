import type { BenchEvent, Sink } from './contender.ts'

/** Opens when an expected number of events has arrived; adds their indexes up, so that no engine may skip reading them. */
export class Gate implements Sink {
  left = 0
  sum = 0
  passed: Promise<void> = Promise.resolve()
  #pass: () => void = () => {}

  expect(events: number): void {
    this.left = events
    this.passed = new Promise((resolve) => {
      this.#pass = resolve
    })
  }

  take(event: BenchEvent): void {
    this.sum += event.index
    if (--this.left === 0) this.#pass()
  }
}

/** Lets readers start, park or end, whatever they need turns of the event loop for. */
export async function settled(turns = 5): Promise<void> {
  for (let n = 0; n < turns; n++) await new Promise((resolve) => setImmediate(resolve))
}
