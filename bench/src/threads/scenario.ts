import type { PartScenario } from '../part.ts'
import type { Measured } from '../scenario.ts'
import type { ThreadContender } from './contender.ts'

/** What is measured between threads. */
export interface ThreadScenario extends PartScenario {
  measure(contender: ThreadContender, quick: boolean): Promise<Measured>
}
