import { execFile } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { loadContender } from './contenders.ts'
import { help, type Options, parseOptions } from './options.ts'
import { terminalReport } from './report.ts'
import { describeMachine, describeRound, type ResultRecord, Results, type SampleRecord } from './results.ts'
import type { Measured, Scenario } from './scenario.ts'
import { scenarios } from './scenarios.ts'
import { rotate } from './stats.ts'

/**
 * The benchmark: asks each contender whether it can do each scenario, measures those that can, a process per contender,
 * scenario and round, and prints what was found beside the goals.
 */
interface Entry {
  readonly scenario: Scenario
  readonly contender: string
}

const child = fileURLToPath(new URL('child.js', import.meta.url))
const results = new URL('../results/', import.meta.url)
/** A process that takes longer than this hangs. */
const timeout = 60_000

await main()

async function main(): Promise<void> {
  let options: Options | string
  try {
    options = parseOptions(process.argv.slice(2))
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n\n${help}`)
    process.exitCode = 2
    return
  }
  if (typeof options === 'string') return console.log(options)
  const entries = wanted(options)
  if (entries.length === 0) {
    console.error(`Nothing has a name that contains ${options.only.join(' or ')}.`)
    process.exitCode = 2
    return
  }
  const records: ResultRecord[] = [describeMachine(options.rounds, options.quick)]
  for (const { id, title, unit } of new Set(entries.map(({ scenario }) => scenario))) {
    records.push({ kind: 'scenario', id, title, unit })
  }
  const able = await askAll(entries, records)
  await measureAll(able, options, records)
  console.log(terminalReport(new Results(records)))
  if (options.quick) console.log('\nA quick run: one short round says that it works, not how fast.')
  else if (options.only.length === 0) save(records)
}

function wanted({ only }: Options): Entry[] {
  const entries = scenarios.flatMap((scenario) => scenario.contenders.map((contender) => ({ scenario, contender })))
  if (only.length === 0) return entries
  return entries.filter(({ scenario, contender }) => {
    return only.some((part) => scenario.id.includes(part) || contender.includes(part))
  })
}

/** Those that can do what their scenario needs. The others are noted with the reason. */
async function askAll(entries: readonly Entry[], records: ResultRecord[]): Promise<Entry[]> {
  const answers = new Map<string, string | undefined>()
  const able: Entry[] = []
  for (const { scenario, contender } of entries) {
    const question = `${contender}: ${scenario.needs}`
    if (!answers.has(question)) {
      progress(`conformance: ${question}`)
      answers.set(question, await ask(scenario, contender))
    }
    const reason = answers.get(question)
    if (reason === undefined) able.push({ scenario, contender })
    else records.push({ kind: 'cannot', scenario: scenario.id, contender, reason })
  }
  return able
}

async function ask(scenario: Scenario, contender: string): Promise<string | undefined> {
  const { cannot } = await inChild<{ cannot?: string }>('conform', scenario.id, contender, '0')
  return cannot
}

async function measureAll(able: readonly Entry[], options: Options, records: ResultRecord[]): Promise<void> {
  const chosen = [...new Set(able.map(({ scenario }) => scenario))]
  const total = able.length * options.rounds
  const started = performance.now()
  let finished = 0
  for (let round = 0; round < options.rounds; round++) {
    for (const scenario of rotate(chosen, round)) {
      const contenders = able.filter((entry) => entry.scenario === scenario)
      for (const { contender } of rotate(contenders, round)) {
        const left = finished === 0 ? '' : `, ${Math.ceil((timeOf(started) / finished) * (total - finished))} s left`
        progress(`round ${round + 1} of ${options.rounds}: ${scenario.id}, ${contender}${left}`)
        records.push(await sample(scenario, contender, round, options))
        finished++
      }
    }
    records.push(describeRound(round))
    if (!process.stderr.isTTY)
      console.error(`round ${round + 1} of ${options.rounds} after ${timeOf(started).toFixed(0)} s`)
  }
  progress('')
}

async function sample(scenario: Scenario, contender: string, round: number, options: Options): Promise<SampleRecord> {
  const ms = options.quick ? 30 : 220
  const { value, extra } = await inChild<Measured>('measure', scenario.id, contender, `${ms}`)
  const { kind } = await loadContender(contender)
  const record = { kind: 'sample', round, scenario: scenario.id, contender, role: kind, value } as const
  return extra ? { ...record, extra } : record
}

async function inChild<Answer>(...args: string[]): Promise<Answer> {
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', child, ...args], { timeout })
  const answer = stdout.trim().split('\n').at(-1)
  if (!answer) throw new Error(`${args.join(' ')}: the process ended without an answer; its readers were not woken.`)
  return JSON.parse(answer)
}

function save(records: readonly ResultRecord[]): void {
  const name = `${new Date().toISOString().slice(0, 19).replaceAll(':', '')}-node${process.versions.node.split('.')[0]}.jsonl`
  mkdirSync(results, { recursive: true })
  writeFileSync(new URL(name, results), `${records.map((record) => JSON.stringify(record)).join('\n')}\n`)
  console.log(
    `\nRaw results: bench/results/${name}. \`node bench/dist/report.js\` writes docs/benchmarks.md from them.`,
  )
}

function timeOf(started: number): number {
  return (performance.now() - started) / 1000
}

function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`)
}
