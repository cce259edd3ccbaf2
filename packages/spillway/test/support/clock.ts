import type { Clock } from '../../src/core/clock.ts'

interface Timer {
  readonly at: number
  readonly callback: () => void
}

/** A clock that stands still until the test moves it. */
export class ManualClock implements Clock {
  /** Unix milliseconds. */
  wall = 1_700_000_000_000
  /** How much time passes with each look at the monotonic clock, to use up turns. */
  perLook = 0
  #monotonic = 5000
  #timers: Timer[] = []
  #deferred: (() => void)[] = []

  now(): number {
    return this.wall
  }

  monotonic(): number {
    this.#monotonic += this.perLook
    return this.#monotonic
  }

  after(ms: number, callback: () => void): () => void {
    const timer = { at: this.#monotonic + ms, callback }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer)
    }
  }

  defer(callback: () => void): void {
    this.#deferred.push(callback)
  }

  /** Lets `ms` milliseconds pass and runs the timers that they bring due, each at its time. */
  advance(ms: number): void {
    const end = this.#monotonic + ms
    for (;;) {
      const due = this.#timers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0]
      if (!due) break
      this.#timers = this.#timers.filter((other) => other !== due)
      this.#pass(due.at - this.#monotonic)
      due.callback()
    }
    this.#pass(end - this.#monotonic)
  }

  get timers(): number {
    return this.#timers.length
  }

  get deferred(): number {
    return this.#deferred.length
  }

  /** Runs what was deferred so far. */
  runDeferred(): void {
    const callbacks = this.#deferred
    this.#deferred = []
    for (const callback of callbacks) callback()
  }

  #pass(ms: number): void {
    this.#monotonic += ms
    this.wall += ms
  }
}
