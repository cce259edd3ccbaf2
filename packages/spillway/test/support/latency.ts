import { setImmediate } from 'node:timers/promises'
import type { Client } from './follower.ts'
import type { Site } from './http.ts'
import { until } from './http.ts'

/** Publishes one after the other and measures until the last of `readers` has each. Milliseconds, in order. */
export async function latencies(site: Site, readers: readonly Client[], count: number, size = 100): Promise<number[]> {
  const payload = 'x'.repeat(size)
  const took: number[] = []
  for (let n = 0; n < count; n++) {
    const began = performance.now()
    const index = await site.broker.publish({ topic: 'T', type: 't', payload })
    const hasCome = () => readers.every(({ follower }) => follower.index >= index)
    for (let turns = 0; turns < 1000 && !hasCome(); turns++) await setImmediate()
    await until(hasCome, 'every healthy reader has the batch')
    took.push(performance.now() - began)
  }
  return took.sort((a, b) => a - b)
}

export function quantile(sorted: readonly number[], q: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] as number
}
