import type { PartScenario } from '../part.ts'
import type { Measured } from '../scenario.ts'
import type { EngineContender, EngineId, Site } from './contender.ts'

export interface EngineScenario extends PartScenario {
  readonly engine: EngineId
  /** How many events must be there before. */
  readonly events?: number
  measure(contender: EngineContender, site: Site, quick: boolean): Promise<Measured>
}
