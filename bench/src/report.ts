import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { type Judged, judge, losses } from './goals.ts'
import { partIds } from './part.ts'
import { parseResults, type Results, type Row, type ScenarioRecord } from './results.ts'
import type { Spread } from './stats.ts'

/** Differences below this are noise on a shared machine. */
const tie = 1.5

/** The whole report as text for a terminal. */
export function terminalReport(results: Results): string {
  const parts = [scenarioLines(results), goalLines(results), lossLines(results), [loadLine(results)]]
  return parts
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join('\n'))
    .join('\n\n')
}

/** A run and the name of the file that it was read from. */
export interface Run {
  readonly results: Results
  readonly source: string
}

/** The page docs/benchmarks.md, of a run of each part. */
export function markdownReport(runs: readonly Run[]): string {
  const sources = runs.map(({ source }) => `bench/results/${source}`)
  return `${[
    `<!-- Generated from ${sources.join(' and ')} by \`node bench/dist/report.js\`. -->`,
    '# Benchmarks',
    '',
    'How Spillway compares with what else one could use (peers) and with the least code that could do the job at all',
    '(floors). Each measurement has processes of its own; rounds are interleaved and their order rotates; a figure is the',
    'median of all rounds, with the smallest and the largest beside it. Only ratios within a run mean anything: the machine',
    'is shared, and factors below 1.5 are ties.',
    '',
    'To reproduce: `npm run bench` (`npm run bench -- --help` tells how to run a part of it), then',
    '`node bench/dist/report.js` to write this page from the newest files in `bench/results`.',
    ...runs.flatMap(({ results }) => ['', ...partLines(results)]),
  ].join('\n')}\n`
}

const introductions = {
  a: [
    '## A. In one process',
    '',
    'The core, without sockets. A contender is asked first, on a small scale, whether every reader gets every event once',
    'and in order.',
  ],
  b: [
    '## B. Sockets',
    '',
    'One server process and a load client of its own on the same machine, connected by loopback. Every event is 200 bytes of',
    'JSON, with a number and the time at which it was published; the client checks that each stream gets each event once and',
    'in order, and a contender that fails anywhere is shown as "cannot". CPU per delivery is that of the server process, of',
    'all its threads, with the next event published when everybody has got the one before.',
  ],
  c: [
    '## C. On disk',
    '',
    'The log in a file, 256 bytes of JSON an event. "node:sqlite by hand": WAL, synchronous = FULL, an INSERT per event and a',
    'transaction per group on the publishing thread. The floor writes lines and calls fdatasync once per group. A contender is',
    'asked first whether it gives back everything in order, opened again where it has a file. What is replayed, opened and',
    'weighed is made once per run; it was closed, and the system has it in its cache. Event loop delay is told without the',
    'millisecond that lies between two looks anyway; "commit" is the median of one append that is waited for.',
  ],
  d: [
    '## D. Between threads',
    '',
    'One thread writes records of ready bytes, others read them and look at number, length and first byte of each. The ring',
    'has 4 MiB. Every writer, also those that post messages, stays at most half of that ahead of its slowest reader (it looks',
    'for 20 us, then sleeps 50 us at a time), so that nothing is lost, and all that is written is delivered: "lost" would say',
    'otherwise. "Per 64": readers see 64 records or 32 KiB at a time; "per record": each at once. Readers of Spillway block',
    'while there is nothing, as `nextSync` does, or wait in the event loop, as `next` does. What is measured is the ring, not',
    'broker, JSON and subscriptions, but for the one scenario that says so. The floor is the same protocol in C11; its readers look for a while before they sleep. A',
    'contender is asked first whether readers get every byte in order and, beside a writer that does not wait, know exactly',
    'how many records they lost.',
  ],
  e: [
    '## E. In engines',
    '',
    'The log in JetStream, with one node and with three replicas in a cluster on loopback (each message in a file; the engine',
    'acknowledges before it calls fsync), and in PostgreSQL with fsync on: 256 bytes of JSON an event, a batch each. The bare',
    'client of JetStream publishes with ids and reads everything back in the same process by an ordered consumer, as every',
    'server must that has readers; its streams have the settings of ours. That of PostgreSQL inserts a row into a table with',
    'an identity column, a transaction each, over the pool of its client; where others are told, the event goes with the',
    'notification. The floors publish without ids and read nothing, or insert groups by one statement. A contender is asked first',
    'whether what it acknowledged is there once and at its place, and read once and in order by another server. Engines run for',
    'all rounds, each measurement has a stream or table of its own, and clients are connected to the leader of their',
    'stream. "Read ms later": when the reader in the process had it all, after the last acknowledgement. What is replayed is',
    'made once per run. A subscription of a broker gives parsed JSON, as do the bare clients that parse; the others give text.',
  ],
  w: [
    '## W. Write paths',
    '',
    'The cheapest correct way from `publish` to the sockets of node:http. The servers are bare: no broker, no subscriptions,',
    'no back pressure. Client, events and CPU per delivery are those of part B, and every body is chunked as HTTP/1.1 wants it.',
    'What does not depend on the connection is made once per tick; then all that the tick has for a connection is written, one',
    'connection after another. "Per tick": its events are joined into one write. "Frame apart": size, events and end of',
    'one chunk are buffers of their own for writev. In brackets: the high-water mark, where it is set. With one event in a',
    'tick, a write per event and a write per tick are the same and measured once. Spillway writes as "socket.write per tick',
    '(16 KiB)"; the others are its peers, and the floor is a bare `net` server that sends no chunks.',
  ],
}

function partLines(results: Results): string[] {
  const { machine } = results
  const packages = Object.entries(machine.packages).map(([name, version]) => `${name} ${version}`)
  const memory = `${Math.round(machine.memory / 2 ** 30)} GiB`
  return [
    ...introductions[machine.part],
    '',
    `Measured ${machine.date.slice(0, 10)} in ${machine.rounds} rounds on ${machine.cores} cores of ${machine.cpu}, ${memory}, ${machine.system},`,
    `Node ${machine.node}, ${packages.join(', ')}. ${loadLine(results)}`,
    '',
    ...goalTable(judge(results)),
    '### Losses against a peer',
    '',
    ...lossLines(results)
      .slice(1)
      .map((line) => `-${line.slice(1)}`),
    '',
    '### Everything that was measured',
    ...results.scenarios.flatMap((scenario) => {
      const { title, unit, more, shows = [] } = scenario
      const columns = ['contender', more ? `${unit} (more is better)` : unit, 'range', ...comparisons, ...shows]
      return [
        '',
        `#### ${title}`,
        '',
        `| ${columns.join(' | ')} |`,
        `|${' --- |'.repeat(columns.length)}`,
        ...rowCells(results, scenario).map((cells) => `| ${cells.join(' | ')} |`),
      ]
    }),
  ]
}

/** Nothing of a part without goals. */
function goalTable(judged: readonly Judged[]): string[] {
  if (judged.length === 0) return []
  return [
    '### Goals',
    '',
    'Limits set before the code was written. A ratio is taken within each round.',
    '',
    '| goal | limit | measured | range | |',
    '| --- | --- | --- | --- | --- |',
    ...judged.map((one) => {
      const { range, value, limit, verdict } = goalCells(one)
      return `| ${one.goal.number}. ${one.goal.text} | ${limit} | ${value} | ${range} | ${verdict} |`
    }),
    '',
  ]
}

const comparisons = ['to the best floor', 'to the best peer']

function scenarioLines(results: Results): string[] {
  return results.scenarios.flatMap((scenario) => {
    const { id, title, unit, more, shows = [] } = scenario
    const columns = [...comparisons, ...shows].map((name) => name.padStart(columnWidth(name)))
    return [
      '',
      `${title}${more ? ' (more is better)' : ''}  [${id}]`,
      `  ${''.padEnd(67)} ${columns.join('  ')}`,
      ...rowCells(results, scenario).map(([name = '', value = '', range = '', ...others]) => {
        if (value === 'cannot') return `  ${name.padEnd(34)} cannot: ${range}`
        const cells = others.map((cell, n) => cell.padStart(columnWidth([...comparisons, ...shows][n] ?? '')))
        return `  ${name.padEnd(34)} ${`${value} ${unit}`.padStart(12)}  ${range.padEnd(18)} ${cells.join('  ')}`
      }),
    ]
  })
}

const columnWidth = (name: string): number => Math.max(name.length, 8)

/** Name, value, range, factors to the best floor and the best peer, and what else is shown. */
function rowCells(results: Results, { id, shows = [] }: ScenarioRecord): string[][] {
  const rows = results.rows(id)
  const best = (wanted: Row['role']) => rows.find(({ role }) => role === wanted)?.spread.median
  const [floor, peer] = [best('floor'), best('peer')]
  const factor = (value: number, other: number | undefined) => (other ? `${short(value / other)}x` : '')
  const measured = rows.map(({ contender, spread, shown }) => [
    contender,
    short(spread.median),
    rangeOf(spread),
    factor(spread.median, floor),
    factor(spread.median, peer),
    ...shown.map(short),
  ])
  const empty = Array.from({ length: comparisons.length + shows.length }, () => '')
  return [...measured, ...results.cannot(id).map(({ contender, reason }) => [contender, 'cannot', reason, ...empty])]
}

function goalLines(results: Results): string[] {
  const judged = judge(results)
  if (judged.length === 0) return []
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
      return `  ${scenario}: ${ours} is behind ${peer} by ${short(factor)}x${remark}`
    }),
  ]
}

function loadLine({ load, machine, leftOut }: Results): string {
  const parts = [`Load average ${rangeOf(load)} on ${machine.cores} cores.`]
  // The benchmark itself keeps up to two processes busy, or one with its collector.
  if (load.max > machine.cores + 1) parts.push('Others were at work: measure again before you trust a figure.')
  if (leftOut > 0) parts.push(`The time was over before the last ${leftOut} measurements of the last round.`)
  return parts.join(' ')
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

/** Writes docs/benchmarks.md from result files, by default the newest of each part. */
function main(files: readonly string[]): void {
  const folder = new URL('../results/', import.meta.url)
  const all = readdirSync(folder)
    .filter((entry) => entry.endsWith('.jsonl'))
    .sort()
  const newest = partIds.flatMap((part) => all.filter((name) => name.endsWith(`-${part}.jsonl`)).slice(-1))
  const names = files.length > 0 ? files : newest
  if (names.length === 0) throw new Error('There are no results yet. Run `npm run bench` first.')
  const runs = names.map((source) => {
    return { source, results: parseResults(readFileSync(new URL(source, folder), 'utf8')) }
  })
  const docs = new URL('../../docs/', import.meta.url)
  mkdirSync(docs, { recursive: true })
  writeFileSync(new URL('benchmarks.md', docs), markdownReport(runs))
  console.log(`Wrote docs/benchmarks.md from bench/results: ${names.join(', ')}.`)
}

if (import.meta.filename === process.argv[1]) main(process.argv.slice(2))
