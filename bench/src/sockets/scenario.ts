import type { Measured, Unit } from '../scenario.ts'
import type { SocketContender } from './contender.ts'

export interface SocketScenario {
  readonly id: string
  readonly title: string
  readonly unit: Unit
  /** More is better. */
  readonly more?: boolean
  /** Names of what else was seen that belongs beside the figure. */
  readonly shows?: readonly string[]
  readonly contenders: readonly string[]
  /** Rejects with `Cannot` if the contender does not stand it. */
  measure(contender: SocketContender, quick: boolean): Promise<Measured>
}

export const ours = 'spillway'
export const perEvent = 'floor: net, a write per event'
export const perBurst = 'floor: net, a write per burst'
export const nodeHttp = 'node:http res.write'
