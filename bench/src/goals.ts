import { coreGoals } from './coreGoals.ts'
import { diskGoals } from './disk/goals.ts'
import { engineGoals } from './engines/goals.ts'
import type { Goal } from './goal.ts'
import type { Results, Row } from './results.ts'
import { socketGoals } from './sockets/goals.ts'
import { type Spread, spread } from './stats.ts'
import { threadGoals } from './threads/goals.ts'

export const goals: readonly Goal[] = [...coreGoals, ...socketGoals, ...diskGoals, ...threadGoals, ...engineGoals]

export interface Judged {
  readonly goal: Goal
  /** Absent: not measured in this run. */
  readonly spread?: Spread
  readonly met?: boolean
}

/** The goals of the part that was run. */
export function judge(results: Results): readonly Judged[] {
  const wanted = goals.filter(({ number }) => number.startsWith(results.machine.part.toUpperCase()))
  return wanted.map((goal) => {
    const values = goal.values(results)
    if (values.length === 0) return { goal }
    const found = spread(values)
    const { atMost = Number.POSITIVE_INFINITY, atLeast = Number.NEGATIVE_INFINITY } = goal
    return { goal, spread: found, met: found.median <= atMost && found.median >= atLeast }
  })
}

/** Scenarios in which something of ours is behind a peer, by `factor`. */
export interface Loss {
  readonly scenario: string
  readonly ours: string
  readonly peer: string
  readonly factor: number
}

export function losses(results: Results): readonly Loss[] {
  return results.scenarios.flatMap(({ id, more = false }) => {
    const rows = results.rows(id)
    const factor = (ours: Row, peer: Row) => {
      return more ? peer.spread.median / ours.spread.median : ours.spread.median / peer.spread.median
    }
    const peers = rows.filter(({ role }) => role === 'peer')
    return rows
      .filter(({ role }) => role === 'ours')
      .flatMap((ours) => peers.map((peer) => ({ ours, peer })))
      .filter(({ ours, peer }) => factor(ours, peer) > 1)
      .map(({ ours, peer }) => ({
        scenario: id,
        ours: ours.contender,
        peer: peer.contender,
        factor: factor(ours, peer),
      }))
  })
}
