import type { Measured, Unit } from './scenario.ts'

/** The parts in the order in which they run, as options, result files and the report call them. */
export const partIds = ['a', 'b', 'c', 'd', 'e', 'w'] as const

/** One of the parts. */
export type PartId = (typeof partIds)[number]

/** What the parts of the benchmark have in common: contenders that are asked first and then measured in scenarios. */
export interface Part {
  readonly id: PartId
  readonly title: string
  /** Rounds, unless told otherwise. */
  readonly rounds: number
  /** Seconds a round may take. Rounds are cut short by what goes beyond all of theirs. */
  readonly roundSeconds: number
  readonly scenarios: readonly PartScenario[]
  /** Gets what can be got. */
  prepare?(): Promise<void>
  versions(): Promise<Readonly<Record<string, string>>>
  roleOf(contender: string): Promise<'ours' | 'peer' | 'floor'>
  /** Scenarios for which this is the same are asked about once. */
  question(scenario: string, contender: string): string
  /** Why a contender cannot do a scenario, if so. */
  ask(scenario: string, contender: string): Promise<string | undefined>
  measure(scenario: string, contender: string, quick: boolean): Promise<Measured | { readonly cannot: string }>
  /** Ends what it has started. */
  finish?(): Promise<void>
}

export interface PartScenario {
  readonly id: string
  readonly title: string
  readonly unit: Unit
  /** More is better. */
  readonly more?: boolean
  /** Names of what else was seen that belongs beside the figure. */
  readonly shows?: readonly string[]
  readonly contenders: readonly string[]
}
