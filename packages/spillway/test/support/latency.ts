import assert from 'node:assert/strict'
import { createHistogram, type RecordableHistogram } from 'node:perf_hooks'
import { setTimeout } from 'node:timers/promises'
import type { Broker } from '../../src/core/broker.ts'
import type { Client, Follower } from './follower.ts'
import { until } from './http.ts'

/** How long batches took, in microseconds: until they were published, and until each healthy reader had them. */
export class Delays {
  readonly publish: RecordableHistogram = createHistogram()
  readonly delivery: RecordableHistogram = createHistogram()
  /** What this process worked meanwhile, in microseconds. Unlike a delay, it is not a busy machine's. */
  work = 0

  get workPerBatch(): number {
    return this.work / this.publish.count
  }

  toString(): string {
    const shown = (delays: RecordableHistogram) =>
      `p50 ${(delays.percentile(50) / 1000).toFixed(2)} ms, p99 ${(delays.percentile(99) / 1000).toFixed(2)} ms`
    return `published ${shown(this.publish)}; delivered ${shown(this.delivery)}; ${this.workPerBatch.toFixed(0)} µs of work per batch`
  }

  /**
   * Fails unless these are at most a fifth above `calm`, beside an allowance in milliseconds for a machine that does other
   * work, too: it has little say in a median, more in what the slowest of a hundred wait for.
   */
  assertHardlyAbove(calm: Delays, { p50 = 2, p99 = 50 } = {}): void {
    for (const what of ['publish', 'delivery'] as const) {
      for (const [percentile, more] of [
        [50, p50],
        [99, p99],
      ] as const) {
        const [before, now] = [calm[what].percentile(percentile), this[what].percentile(percentile)]
        assert.ok(now < before * 1.2 + more * 1000, `${what} p${percentile}: ${now} µs, was ${before} µs`)
      }
    }
  }
}

/** How many batches are published at once, and may be on their way to a healthy reader. */
const maxAhead = 50

/** Readers that must miss nothing: what they are sent is checked and dropped as it comes, and its delay measured. */
export class HealthyReaders {
  readonly #clients: readonly Client[]
  readonly #broker: Broker
  #delays = new Delays()
  /** When the batches since `#first` were published. */
  #began: number[] = []
  #first = 1

  /** For `clients` that follow `broker` from its first batch on. */
  constructor(broker: Broker, clients: readonly Client[]) {
    this.#broker = broker
    this.#clients = clients
    for (const { follower } of clients) {
      let next = 1
      follower.onMessage = () => {
        for (const index of indexesOf(follower)) {
          assert.equal(index, next++, `${follower.face} misses nothing`)
          this.#delays.delivery.record(microsecondsSince(this.#began[index - this.#first] as number))
        }
      }
    }
  }

  /**
   * Publishes one batch of `size` bytes after the other, as many as `rate` a second come to since it began, until `isOver`;
   * then waits until every reader has all. It waits for readers, too: whoever holds one up lowers the rate.
   */
  async load(
    delays: Delays,
    { rate, size, isOver }: { rate: number; size: number; isOver: (seconds: number) => boolean },
  ): Promise<void> {
    this.#delays = delays
    this.#first = this.#broker.status.newestIndex + 1
    this.#began = []
    const payload = 'x'.repeat(size)
    const start = performance.now()
    const work = process.cpuUsage()
    const seconds = () => (performance.now() - start) / 1000
    while (!isOver(seconds())) {
      // What is due after a pause comes in pieces, and not before it was taken: on a machine that does other work, too, all
      // at once would be more than the ring holds for anybody.
      const ahead = this.#broker.status.newestIndex - Math.min(...this.#clients.map(({ follower }) => follower.index))
      const due = Math.min(Math.floor(seconds() * rate) - this.#began.length, maxAhead - ahead)
      for (let n = 0; n < due; n++) {
        const began = performance.now()
        this.#began.push(began)
        await this.#broker.publish({ topic: 'T', type: 't', payload })
        delays.publish.record(microsecondsSince(began))
      }
      await setTimeout(1)
    }
    const { newestIndex } = this.#broker.status
    assert.equal(newestIndex, this.#first + this.#began.length - 1, 'nobody else has published')
    await until(
      () => this.#clients.every(({ follower }) => follower.index === newestIndex),
      () => `${newestIndex} for every healthy reader: ${this.#clients.map(({ follower }) => follower.index)}`,
    )
    const { user, system } = process.cpuUsage(work)
    delays.work += user + system
  }
}

/** The indexes of the batches that have come, which are forgotten: of millions, not even these may be kept. */
function indexesOf({ face, story, batches, gaps }: Follower): number[] {
  assert.deepEqual(gaps, [], face)
  batches.length = 0
  return story.splice(0).map((one) => ('index' in one ? one.index : 0))
}

function microsecondsSince(began: number): number {
  return Math.max(1, Math.round((performance.now() - began) * 1000))
}

export function quantile(sorted: readonly number[], q: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] as number
}
