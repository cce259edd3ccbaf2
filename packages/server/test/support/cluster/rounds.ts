import assert from 'node:assert/strict'
import { faults, type Site } from './faults.ts'

/**
 * Lets one thing after the other go wrong while publishers and readers are at work, in an order that chance decides, each
 * before any a second time. After each it waits until the log is whole and all readers have come to what is acknowledged,
 * and judges everything that anybody has seen so far.
 */
export async function runRounds(site: Site, rounds: number, report: (line: string) => void): Promise<void> {
  const { cluster, stream, traffic, random } = site
  const possible = faults.filter(({ needsCut }) => cluster.canCut || !needsCut)
  let bag = [...possible]
  let longest = 0
  for (let round = 1; round <= rounds; round++) {
    if (bag.length === 0) bag = [...possible]
    const fault = random.pick(bag)
    bag = bag.filter((other) => other !== fault)
    const began = performance.now()
    const before = traffic.observations.acknowledgements
    traffic.takeLongestPause()
    try {
      await fault.inject(site)
      traffic.oneHops()
      await cluster.waitUntilWhole(stream)
      await traffic.everyServerWrites()
      await traffic.readersCatchUp()
    } catch (error) {
      throw new Error(`In round ${round}, when ${fault.name}: ${(error as Error).message}`, { cause: error })
    }
    const pause = traffic.takeLongestPause()
    longest = Math.max(longest, pause)
    const written = traffic.observations.acknowledgements - before
    report(
      `round ${round}: ${fault.name}; ${seconds(pause)} without a write, ${written} written, whole after ${seconds(performance.now() - began)}`,
    )
    assert.deepEqual(first(traffic.observations.violations()), [], `round ${round}: ${fault.name}`)
  }
  await traffic.end()
  assert.deepEqual(first(traffic.observations.violations()), [])
  report(`${traffic.observations.acknowledgements} batches; longest time without a write ${seconds(longest)}`)
}

const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`

/** As many as a reader of the report will look at. */
function first(violations: readonly string[]): readonly string[] {
  const most = 20
  return violations.length <= most ? violations : [...violations.slice(0, most), `and ${violations.length - most} more`]
}
