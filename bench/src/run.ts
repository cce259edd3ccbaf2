import { mkdirSync, writeFileSync } from 'node:fs'
import { help, type Options, parseOptions } from './options.ts'
import type { Part, PartScenario } from './part.ts'
import { parts } from './parts.ts'
import { terminalReport } from './report.ts'
import { describeMachine, describeRound, type ResultRecord, Results } from './results.ts'
import { rotate } from './stats.ts'

/**
 * The benchmark: asks each contender whether it can do each scenario, measures those that can, a process per contender,
 * scenario and round, and prints what was found beside the goals.
 */
interface Entry {
  readonly scenario: PartScenario
  readonly contender: string
}

const results = new URL('../results/', import.meta.url)

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
  const { part: wantedPart } = options
  const chosen = parts
    .filter(({ id }) => wantedPart === undefined || id === wantedPart)
    .map((part) => ({ part, entries: wanted(part, options) }))
    .filter(({ entries }) => entries.length > 0)
  if (chosen.length === 0) {
    console.error('Nothing has such a name.')
    process.exitCode = 2
  }
  for (const { part, entries } of chosen) await runPart(part, entries, options)
}

async function runPart(part: Part, entries: readonly Entry[], options: Options): Promise<void> {
  const rounds = options.rounds ?? (options.quick ? 1 : part.rounds)
  await part.prepare?.()
  const records: ResultRecord[] = [describeMachine(part.id, await part.versions(), rounds, options.quick)]
  for (const { id, title, unit, more, shows } of new Set(entries.map(({ scenario }) => scenario))) {
    records.push({ kind: 'scenario', id, title, unit, ...(more && { more }), ...(shows && { shows }) })
  }
  try {
    const able = await askAll(part, entries, records)
    await measureAll(part, able, rounds, options.quick, records)
  } finally {
    await part.finish?.()
  }
  console.log(`\n== Part ${part.id.toUpperCase()}. ${part.title}\n${terminalReport(new Results(records))}`)
  if (options.quick) console.log('\nA quick run: one short round says that it works, not how fast.')
  else if (options.only.length + options.with.length === 0) save(part, records)
}

function wanted(part: Part, options: Options): Entry[] {
  return part.scenarios
    .flatMap((scenario) => scenario.contenders.map((contender) => ({ scenario, contender })))
    .filter(({ scenario, contender }) => isNamed(options.only, scenario.id) && isNamed(options.with, contender))
}

/** Whole names go before parts: `single-1000` is not `single-10000`. */
function isNamed(names: readonly string[], name: string): boolean {
  return names.length === 0 || names.some((wanted) => (isWhole(wanted) ? name === wanted : name.includes(wanted)))
}

function isWhole(wanted: string): boolean {
  return parts.some(({ scenarios }) => {
    return scenarios.some(({ id, contenders }) => id === wanted || contenders.includes(wanted))
  })
}

/** Those that can do what their scenario needs. The others are noted with the reason. */
async function askAll(part: Part, entries: readonly Entry[], records: ResultRecord[]): Promise<Entry[]> {
  const answers = new Map<string, string | undefined>()
  const able: Entry[] = []
  for (const { scenario, contender } of entries) {
    const question = part.question(scenario.id, contender)
    if (!answers.has(question)) {
      progress(`conformance: ${question}`)
      answers.set(question, await part.ask(scenario.id, contender))
    }
    const reason = answers.get(question)
    if (reason === undefined) able.push({ scenario, contender })
    else records.push({ kind: 'cannot', scenario: scenario.id, contender, reason })
  }
  return able
}

async function measureAll(
  part: Part,
  able: readonly Entry[],
  rounds: number,
  quick: boolean,
  records: ResultRecord[],
): Promise<void> {
  const chosen = [...new Set(able.map(({ scenario }) => scenario))]
  const failed = new Set<Entry>()
  const total = able.length * rounds
  const started = performance.now()
  const deadline = part.roundSeconds * rounds
  let finished = 0
  let leftOut = 0
  for (let round = 0; round < rounds; round++) {
    for (const scenario of rotate(chosen, round)) {
      const contenders = able.filter((entry) => entry.scenario === scenario)
      for (const entry of rotate(contenders, round)) {
        const { contender } = entry
        const left = finished === 0 ? '' : `, ${Math.ceil((timeOf(started) / finished) * (total - finished))} s left`
        progress(`round ${round + 1} of ${rounds}: ${scenario.id}, ${contender}${left}`)
        finished++
        if (failed.has(entry)) continue
        if (timeOf(started) > deadline) {
          leftOut++
          continue
        }
        const measured = await part.measure(scenario.id, contender, quick)
        if ('cannot' in measured) {
          failed.add(entry)
          records.push({ kind: 'cannot', scenario: scenario.id, contender, reason: measured.cannot })
          continue
        }
        const role = await part.roleOf(contender)
        records.push({ kind: 'sample', round, scenario: scenario.id, contender, role, ...measured })
      }
    }
    records.push(describeRound(round))
    if (!process.stderr.isTTY) console.error(`round ${round + 1} of ${rounds} after ${timeOf(started).toFixed(0)} s`)
  }
  progress('')
  if (leftOut > 0) records.push({ kind: 'leftOut', count: leftOut })
}

function save(part: Part, records: readonly ResultRecord[]): void {
  const time = new Date().toISOString().slice(0, 19).replaceAll(':', '')
  const name = `${time}-node${process.versions.node.split('.')[0]}-${part.id}.jsonl`
  mkdirSync(results, { recursive: true })
  writeFileSync(new URL(name, results), `${records.map((record) => JSON.stringify(record)).join('\n')}\n`)
  console.log(
    `\nRaw results: bench/results/${name}. \`node bench/dist/report.js\` writes docs/benchmarks.md from the newest.`,
  )
}

function timeOf(started: number): number {
  return (performance.now() - started) / 1000
}

function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`)
}
