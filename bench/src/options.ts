import { parseArgs } from 'node:util'
import { type PartId, partIds } from './part.ts'

export const help = `Compares Spillway with its peers and with floors: part A its core in one process, part B its
sockets, part C its log on disk, part D its ring between threads, part E its logs in engines. Part W compares the ways to write to a socket.

  npm run bench                      everything: 5 rounds of parts A, C, D, E and W, 3 of part B, about 40 minutes
  npm run bench -- --quick           1 short round: does it run? The figures mean little
  npm run bench -- --part b          one part: a, b, c, d, e or w
  npm run bench -- --only wake       scenarios of that name, or else with that in their name; a comma separates several
  npm run bench -- --with spillway   contenders, named the same way
  npm run bench -- --rounds 9        more rounds, of all parts

Raw results go to bench/results, unless --quick, --only or --with was given. \`node bench/dist/report.js\` makes docs/benchmarks.md of the
newest of each part. Parts B, D and W compile programs with gcc if there is one, and leave out what is not installed.
BENCH_SERVER_FLAGS gives their servers, and the processes of parts C and E, flags of Node: BENCH_SERVER_FLAGS="--cpu-prof --cpu-prof-dir=/tmp/profiles" npm run bench -- ...
Runs on the Node that it is started with.`

export interface Options {
  /** Absent: as many as the part wants. */
  readonly rounds?: number
  /** Absent: all. */
  readonly part?: PartId
  readonly quick: boolean
  /** Names of scenarios, or parts of them; empty: all. */
  readonly only: readonly string[]
  /** The same of contenders. */
  readonly with: readonly string[]
}

/** Answers a text where nothing is to be run. Throws on what it does not know. */
export function parseOptions(args: readonly string[]): Options | string {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rounds: { type: 'string' },
      part: { type: 'string' },
      only: { type: 'string' },
      with: { type: 'string' },
      quick: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  if (values.help) return help
  const { quick } = values
  const rounds = values.rounds === undefined ? undefined : Number(values.rounds)
  if (rounds !== undefined && (!Number.isInteger(rounds) || rounds < 1)) {
    throw new Error(`--rounds must be a number from 1 on, got ${values.rounds}.`)
  }
  const part = partIds.find((id) => id === values.part)
  if (values.part !== undefined && !part) throw new Error(`--part must be a, b, c, d, e or w, got ${values.part}.`)
  const names = (list = '') => list.split(',').filter(Boolean)
  return {
    quick,
    only: names(values.only),
    with: names(values.with),
    ...(rounds !== undefined && { rounds }),
    ...(part && { part }),
  }
}
