import type { Results } from './results.ts'

/** A limit that was set before the code was written, and what was measured beside it. */
export interface Goal {
  readonly number: string
  readonly text: string
  readonly unit: string
  readonly atMost?: number
  readonly atLeast?: number
  /** What is held against the limit, a value per round. */
  readonly values: (results: Results) => readonly number[]
}

/** Divided within each round, so that a machine which slows down between rounds does not count. */
export function ratio(scenario: string, contender: string, otherScenario: string, other: string): Goal['values'] {
  return (results) => {
    const below = new Map(results.samples(otherScenario, other).map(({ round, value }) => [round, value]))
    return results.samples(scenario, contender).flatMap(({ round, value }) => {
      const divisor = below.get(round)
      return divisor === undefined ? [] : [value / divisor]
    })
  }
}

export function valuesOf(results: Results, scenario: string, contender: string): number[] {
  return results.samples(scenario, contender).map(({ value }) => value)
}

export function extrasOf(results: Results, scenario: string, contender: string, name: string): number[] {
  return results.samples(scenario, contender).map(({ extra }) => Number(extra?.[name]))
}
