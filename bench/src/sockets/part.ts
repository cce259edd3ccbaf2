import type { Part } from '../part.ts'
import { packageVersion } from '../results.ts'
import { socketConformance, versionOf } from './conformance.ts'
import { socketContender, socketContenders } from './contenders.ts'
import { installPrograms } from './debian.ts'
import type { SocketScenario } from './scenario.ts'
import { busy } from './scenarios/busy.ts'
import { deliver } from './scenarios/deliver.ts'
import { idle } from './scenarios/idle.ts'
import { latency } from './scenarios/latency.ts'
import { paths } from './scenarios/paths.ts'
import { rate } from './scenarios/rate.ts'
import { stalled } from './scenarios/stalled.ts'
import { Cannot } from './stage.ts'

const programs = socketContenders.flatMap(({ needs }) => needs ?? [])

/** Part B: one server process, clients on the same machine. */
export const sockets: Part = {
  id: 'b',
  title: 'Sockets',
  rounds: 3,
  roundSeconds: 240,
  ...over([...deliver, ...rate, ...latency, ...idle, ...stalled, ...busy]),
  prepare: () => installPrograms(programs),
  async versions() {
    const packages = socketContenders.flatMap(({ from }) => from ?? [])
    const found: Record<string, string> = {}
    for (const name of packages) found[name] = packageVersion(name)
    for (const name of [...programs, 'gcc']) found[name] = (await versionOf(name)) ?? 'missing'
    return found
  },
}

/** Part W: the least code around each way to write. */
export const writePaths: Part = {
  id: 'w',
  title: 'Write paths',
  rounds: 5,
  roundSeconds: 60,
  ...over(paths),
  versions: async () => ({ gcc: (await versionOf('gcc')) ?? 'missing' }),
}

/** What parts over sockets have in common: their contenders are asked and measured the same way. */
function over(
  scenarios: readonly SocketScenario[],
): Pick<Part, 'scenarios' | 'roleOf' | 'question' | 'ask' | 'measure'> {
  return {
    scenarios,
    roleOf: async (contender) => socketContender(contender).role,
    question: (_scenario, contender) => contender,
    ask: (_scenario, contender) => socketConformance(socketContender(contender)),
    async measure(id, contender, quick) {
      const scenario = scenarios.find((candidate) => candidate.id === id)
      if (!scenario) throw new Error(`There is no scenario "${id}".`)
      try {
        return await scenario.measure(socketContender(contender), quick)
      } catch (error) {
        if (error instanceof Cannot) return { cannot: error.message }
        throw error
      }
    },
  }
}
