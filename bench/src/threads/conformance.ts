import type { Outcome, Stream, ThreadContender } from './contender.ts'
import { aheadOf } from './payload.ts'

/** What a broker's event is beside its payload. */
const framed = 256
const sizes = [1, 7, 8, 64, 100, 256, 1000, 4096]

/** Why readers do not get every byte in order, or do not know exactly what they lost, if so. */
export async function threadConformance(contender: ThreadContender, records = 20_000): Promise<string | undefined> {
  const missing = await contender.missing?.()
  if (missing) return missing
  const one = { sizes, readers: 2, thorough: true, records, warmup: 0, ms: 0 }
  const paced = { ...one, ring: 2 ** 18, paced: true, ahead: aheadOf(sizes, 2 ** 18, framed) }
  const problem = problemOf(paced, await contender.stream(paced), false)
  // A writer that waits for nobody in a ring that is small.
  const lossy = { ...one, ring: 2 ** 16, paced: false, ahead: 0 }
  return problem ?? problemOf(lossy, await contender.stream(lossy), contender.loses)
}

/** What is wrong with how a stream ended. */
export function problemOf({ readers }: Stream, { records, accounts }: Outcome, mayLose: boolean): string | undefined {
  if (accounts.length !== readers) return `${accounts.length} of ${readers} readers came to an end`
  for (const { got, lost, wrong } of accounts) {
    if (wrong > 0) return `a reader got ${wrong} of ${got} records wrong or out of order`
    if (lost > 0 && !mayLose) return `a reader lost ${lost} of ${records} records`
    if (got + lost !== records) return `a reader got ${got} of ${records} records and counted ${lost} as lost`
  }
  return undefined
}
