import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { type Judged, judge, losses } from './goals.ts'
import { parseResults, type Results } from './results.ts'
import type { Spread } from './stats.ts'

/** Differences below this are noise on a shared machine. */
const tie = 1.5

/** The whole report as text for a terminal. */
export function terminalReport(results: Results): string {
  const parts = [scenarioLines(results), goalLines(results), lossLines(results), [loadLine(results)]]
  return parts.map((lines) => lines.join('\n')).join('\n\n')
}

/** The page docs/benchmarks.md. */
export function markdownReport(results: Results, source: string): string {
  const { machine } = results
  const packages = Object.entries(machine.packages).map(([name, version]) => `${name} ${version}`)
  const memory = `${Math.round(machine.memory / 2 ** 30)} GiB`
  return `${[
    `<!-- Generated from bench/results/${source} by \`node bench/dist/report.js\`. -->`,
    '# Benchmarks',
    '',
    'How the core of Spillway compares, in one process, with what else one could use (peers) and with the least code that',
    'could do the job at all (floors). Each measurement is a process of its own; rounds are interleaved and their order',
    `rotates; a figure is the median of ${machine.rounds} rounds, with the smallest and the largest beside it. Less is better everywhere.`,
    'Only ratios within this run mean anything: the machine is shared, and factors below 1.5 are ties.',
    '',
    `Measured ${machine.date.slice(0, 10)} on ${machine.cores} cores of ${machine.cpu}, ${memory}, ${machine.system},`,
    `Node ${machine.node}, ${packages.join(', ')}. ${loadLine(results)}`,
    '',
    'To reproduce: `npm run bench` (`npm run bench -- --help` tells how to run a part of it), then',
    '`node bench/dist/report.js` to write this page from the newest file in `bench/results`.',
    '',
    '## Goals',
    '',
    'Limits set before the code was written. A ratio is taken within each round.',
    '',
    '| goal | limit | measured | range | |',
    '| --- | --- | --- | --- | --- |',
    ...judge(results).map((judged) => {
      const { range, value, limit, verdict } = goalCells(judged)
      return `| ${judged.goal.number}. ${judged.goal.text} | ${limit} | ${value} | ${range} | ${verdict} |`
    }),
    '',
    '## Losses against a peer',
    '',
    ...lossLines(results)
      .slice(1)
      .map((line) => `-${line.slice(1)}`),
    '',
    '## Everything that was measured',
    '',
    'A contender is asked first, on a small scale, whether every reader gets every event once and in order.',
    ...results.scenarios.flatMap((scenario) => [
      '',
      `### ${scenario.title}`,
      '',
      `| contender | ${scenario.unit} | range | against the first floor |`,
      '| --- | --- | --- | --- |',
      ...rowCells(results, scenario.id).map((cells) => `| ${cells.join(' | ')} |`),
    ]),
  ].join('\n')}\n`
}

function scenarioLines(results: Results): string[] {
  return results.scenarios.flatMap(({ id, title, unit }) => {
    const rows = rowCells(results, id)
    return [
      '',
      `${title}  [${id}]`,
      ...rows.map(([name = '', value = '', range = '', factor = '']) =>
        value === 'cannot'
          ? `  ${name.padEnd(32)} cannot: ${range}`
          : `  ${name.padEnd(32)} ${`${value} ${unit}`.padStart(12)}  ${range.padEnd(20)} ${factor}`,
      ),
    ]
  })
}

function rowCells(results: Results, scenario: string): string[][] {
  const rows = results.rows(scenario)
  const floor = rows.find(({ role }) => role === 'floor')?.spread.median
  const measured = rows.map(({ contender, spread }) => [
    contender,
    short(spread.median),
    rangeOf(spread),
    floor ? `${short(spread.median / floor)}x` : '',
  ])
  return [...measured, ...results.cannot(scenario).map(({ contender, reason }) => [contender, 'cannot', reason, ''])]
}

function goalLines(results: Results): string[] {
  const judged = judge(results)
  const missed = judged.filter(({ met }) => met === false).length
  const met = judged.filter(({ met }) => met).length
  return [
    `Goals: ${met} met, ${missed} missed, ${judged.length - met - missed} not measured`,
    ...judged.map((one) => {
      const { value, range, limit, verdict } = goalCells(one)
      return `  ${one.goal.number.padEnd(4)} ${verdict.padEnd(12)} ${value.padStart(9)} ${range.padEnd(18)} limit ${limit.padEnd(11)} ${one.goal.text}`
    }),
  ]
}

function goalCells({ goal, spread, met }: Judged): { value: string; range: string; limit: string; verdict: string } {
  const unit = goal.unit === 'x' ? 'x' : ` ${goal.unit}`
  const limit = goal.atMost === undefined ? `>= ${goal.atLeast}` : `<= ${goal.atMost}`
  return {
    value: spread ? `${short(spread.median)}${unit}`.trim() : '-',
    range: spread ? rangeOf(spread) : '',
    limit: `${limit}${unit}`.trim(),
    verdict: met === undefined ? 'not measured' : met ? 'met' : 'MISSED',
  }
}

function lossLines(results: Results): string[] {
  const found = losses(results)
  if (found.length === 0) return ['Losses against a peer', '  none']
  return [
    'Losses against a peer',
    ...found.map(({ scenario, ours, peer, factor }) => {
      const remark = factor < tie ? ' (a tie)' : ''
      return `  ${scenario}: ${ours} takes ${short(factor)}x what ${peer} takes${remark}`
    }),
  ]
}

function loadLine({ load, machine }: Results): string {
  const seen = `Load average ${rangeOf(load)} on ${machine.cores} cores.`
  // The benchmark itself is one process with a busy collector beside it.
  return load.max <= machine.cores + 1 ? seen : `${seen} Others were at work: measure again before you trust a figure.`
}

function rangeOf({ min, max }: Spread): string {
  return `${short(min)} - ${short(max)}`
}

/** Three digits are more than a shared machine can tell apart. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return '-'
  const size = Math.abs(value)
  if (size >= 100) return Math.round(value).toLocaleString('en')
  if (size >= 10) return value.toFixed(1)
  return size === 0 ? '0' : value.toFixed(2)
}

/** Writes docs/benchmarks.md from a result file, by default the newest. */
function main(file?: string): void {
  const folder = new URL('../results/', import.meta.url)
  const name =
    file ??
    readdirSync(folder)
      .filter((entry) => entry.endsWith('.jsonl'))
      .sort()
      .at(-1)
  if (!name) throw new Error('There are no results yet. Run `npm run bench` first.')
  const results = parseResults(readFileSync(new URL(name, folder), 'utf8'))
  const docs = new URL('../../docs/', import.meta.url)
  mkdirSync(docs, { recursive: true })
  writeFileSync(new URL('benchmarks.md', docs), markdownReport(results, name))
  console.log(`Wrote docs/benchmarks.md from bench/results/${name}.`)
}

if (import.meta.filename === process.argv[1]) main(process.argv[2])
