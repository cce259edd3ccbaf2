import { parseArgs } from 'node:util'

export const help = `Compares the core of Spillway with its peers and with floors, in one process each.

  npm run bench                      everything: 5 rounds, about 5 minutes
  npm run bench -- --quick           1 short round: does it run? The figures mean little
  npm run bench -- --only wake       scenarios or contenders whose name contains "wake"; a comma separates several
  npm run bench -- --rounds 9        more rounds

Raw results go to bench/results, unless --quick or --only was given. \`node bench/dist/report.js\` makes docs/benchmarks.md of them.
Runs on the Node that it is started with.`

export interface Options {
  readonly rounds: number
  readonly quick: boolean
  /** Parts of names; empty: everything. */
  readonly only: readonly string[]
}

/** Answers a text where nothing is to be run. Throws on what it does not know. */
export function parseOptions(args: readonly string[]): Options | string {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: { type: 'string' },
      only: { type: 'string' },
      quick: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) return help
  const rounds = Number(values.rounds ?? (values.quick ? 1 : 5))
  if (!Number.isInteger(rounds) || rounds < 1) {
    throw new Error(`--rounds must be a number from 1 on, got ${values.rounds}.`)
  }
  return { rounds, quick: values.quick, only: values.only?.split(',').filter(Boolean) ?? [] }
}
