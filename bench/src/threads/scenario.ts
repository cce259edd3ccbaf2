import type { PartScenario } from '../part.ts'
import type { Measured } from '../scenario.ts'
import type { ThreadContender } from './contender.ts'

export interface ThreadScenario extends PartScenario {
  measure(contender: ThreadContender, quick: boolean): Promise<Measured>
}
