import type { PartScenario } from '../part.ts'
import type { Measured } from '../scenario.ts'
import type { DiskContender } from './contender.ts'

/** What a measurement is given, in a process of its own. */
export interface Place {
  /** Where a new file can be made. */
  readonly path: string
  /** The contender's file of before, with as many events as the scenario wants. */
  readonly filled: string
  readonly quick: boolean
}

export interface DiskScenario extends PartScenario {
  /** How many events must be there before. */
  readonly events?: number
  /** Whose file it is, if not the contender's own. */
  readonly fileOf?: string
  measure(contender: DiskContender, place: Place, events: number): Promise<Measured>
}
