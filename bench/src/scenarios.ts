import type { Scenario } from './scenario.ts'
import { append } from './scenarios/append.ts'
import { cancel } from './scenarios/cancel.ts'
import { collector } from './scenarios/collector.ts'
import { locate } from './scenarios/locate.ts'
import { match } from './scenarios/match.ts'
import { memory } from './scenarios/memory.ts'
import { replay } from './scenarios/replay.ts'
import { wake } from './scenarios/wake.ts'

export const scenarios: readonly Scenario[] = [
  ...append,
  ...wake,
  ...cancel,
  ...replay,
  ...locate,
  ...memory,
  ...match,
  ...collector,
]
