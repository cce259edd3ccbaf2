import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { Part } from '../part.ts'
import { packageVersion } from '../results.ts'
import type { Measured } from '../scenario.ts'
import { threadContender } from './contenders.ts'
import { threadScenarios } from './scenarios.ts'

const child = fileURLToPath(new URL('child.js', import.meta.url))
/** A process that takes longer than this hangs. */
const timeout = 60_000

/** Part D: the ring in shared memory, a process per contender, scenario and round. */
export const betweenThreads: Part = {
  id: 'd',
  title: 'Between threads',
  rounds: 5,
  roundSeconds: 120,
  scenarios: threadScenarios,
  versions: async () => ({ spillway: packageVersion('spillway') }),
  roleOf: async (contender) => threadContender(contender).role,
  question: (_scenario, contender) => contender,
  async ask(scenario, contender) {
    return (await inChild<{ cannot?: string }>('conform', scenario, contender, 'quick')).cannot
  },
  measure: (scenario, contender, quick) => inChild<Measured>('measure', scenario, contender, quick ? 'quick' : 'whole'),
}

async function inChild<Answer>(...args: string[]): Promise<Answer> {
  const { stdout } = await promisify(execFile)(process.execPath, [child, ...args], { timeout })
  const answer = stdout.trim().split('\n').at(-1)
  if (!answer) throw new Error(`${args.join(' ')}: the process ended without an answer.`)
  return JSON.parse(answer)
}
