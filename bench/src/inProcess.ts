import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { loadContender } from './contenders.ts'
import type { Part } from './part.ts'
import { packageVersion } from './results.ts'
import type { Measured } from './scenario.ts'
import { scenarios } from './scenarios.ts'

const child = fileURLToPath(new URL('child.js', import.meta.url))
/** A process that takes longer than this hangs. */
const timeout = 60_000

/** Part A: the core, a process per contender, scenario and round. */
export const inProcess: Part = {
  id: 'a',
  title: 'In one process',
  rounds: 5,
  roundSeconds: 120,
  scenarios,
  versions: async () =>
    Object.fromEntries(['spillway', 'rxjs', 'effect', 'mitata'].map((name) => [name, packageVersion(name)])),
  roleOf: async (contender) => (await loadContender(contender)).kind,
  question: (scenario, contender) => `${contender}: ${scenarios.find(({ id }) => id === scenario)?.needs}`,
  async ask(scenario, contender) {
    return (await inChild<{ cannot?: string }>('conform', scenario, contender, '0')).cannot
  },
  measure: (scenario, contender, quick) => inChild<Measured>('measure', scenario, contender, quick ? '30' : '220'),
}

async function inChild<Answer>(...args: string[]): Promise<Answer> {
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', child, ...args], { timeout })
  const answer = stdout.trim().split('\n').at(-1)
  if (!answer) throw new Error(`${args.join(' ')}: the process ended without an answer; its readers were not woken.`)
  return JSON.parse(answer)
}
