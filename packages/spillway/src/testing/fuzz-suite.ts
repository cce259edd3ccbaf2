import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { type FuzzTarget, fuzz } from './fuzz.ts'

/** Runs of a target with a share of 1. */
const defaultRuns = 20_000

/**
 * A test for each target, with another seed each time. `SPILLWAY_FUZZ_SEED` repeats one that failed,
 * `SPILLWAY_FUZZ_RUNS` sets how often a target runs.
 */
export function fuzzSuite(targets: readonly FuzzTarget[]): void {
  const { SPILLWAY_FUZZ_SEED, SPILLWAY_FUZZ_RUNS } = process.env
  const seed = SPILLWAY_FUZZ_SEED === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(SPILLWAY_FUZZ_SEED)
  const runs = SPILLWAY_FUZZ_RUNS === undefined ? defaultRuns : Number(SPILLWAY_FUZZ_RUNS)
  console.log(`fuzz: SPILLWAY_FUZZ_SEED=${seed}`)

  // [S11] What a parser writes to the prototype of all objects is an error at once.
  Object.freeze(Object.prototype)
  const members = Reflect.ownKeys(Object.prototype).length
  after(() => assert.equal(Reflect.ownKeys(Object.prototype).length, members))

  for (const target of targets) {
    const { name, share = 1 } = target
    test(`fuzz: ${name}`, () => {
      const [failure] = fuzz(target, Math.ceil(runs * share), seed).failures
      if (!failure) return
      const where = `SPILLWAY_FUZZ_SEED=${seed}, run ${failure.run}, input ${JSON.stringify(failure.input)}`
      throw new Error(where, { cause: failure.error })
    })
  }
}
