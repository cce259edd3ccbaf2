import type { FileRange, SqliteFile } from 'spillway/log/sqlite'
import { columns, counted, formatted, paintFor, plain } from '../terminal.ts'
import { type Command, defineCommand } from './command.ts'
import { lossText, shareUpTo, withDataFile } from './data-file.ts'
import { Progress } from './progress.ts'

/** `spillway inspect`. */
export const inspect: Command = defineCommand({
  name: 'inspect',
  summary: 'Show what the history of a directory holds, and whether all of it is whole.',
  usage: ['spillway inspect <dir> [--json]'],
  options: { json: { type: 'boolean', help: 'Print one JSON object.' } },
  operand: '<dir>',
  notes: [
    'It reads every batch and changes nothing, also while the directory is served; it shows what was there when it began.',
    'The exit code is 1 if something is damaged or missing. What the limits of the server removed is not missing.',
  ],
  examples: ['spillway inspect ./spillway-data', 'spillway inspect ./spillway-data --json | jq .lost'],
  run: ({ json }, folder) =>
    withDataFile(folder, (file) => {
      const found = look(file)
      process.stdout.write(json ? `${JSON.stringify(found)}\n` : pretty(found))
      return found.whole ? 0 : 1
    }),
})

/** What `--json` prints. */
interface Found {
  readonly path: string
  readonly whole: boolean
  readonly epoch: string | null
  readonly durability: string | null
  readonly floor: number
  readonly last: number | null
  readonly batches: number
  readonly events: number
  readonly payloadBytes: number
  readonly fileBytes: number
  /** Unix milliseconds. */
  readonly firstTime: number | null
  readonly lastTime: number | null
  /** Events by topic, most first. */
  readonly topics: Readonly<Record<string, number>>
  /** Indexes strictly between are damaged or missing. */
  readonly lost: readonly FileRange[]
  /** What is wrong with the file itself. */
  readonly problems: readonly string[]
}

function look(file: SqliteFile): Found {
  const progress = new Progress()
  const topics = new Map<string, number>()
  const lost: FileRange[] = []
  let batches = 0
  let events = 0
  let payloadBytes = 0
  let firstTime: number | null = null
  let lastTime: number | null = null
  for (const part of file.parts()) {
    if ('lost' in part) lost.push(part.lost)
    if (!('batches' in part)) continue
    for (const batch of part.batches) {
      firstTime ??= batch.time
      lastTime = batch.time
      for (const { topic, payloadText } of batch.events) {
        topics.set(topic, (topics.get(topic) ?? 0) + 1)
        payloadBytes += Buffer.byteLength(payloadText)
      }
      events += batch.events.length
    }
    batches += part.batches.length
    const { index = 0 } = part.batches.at(-1) ?? {}
    progress.show(`${counted(batches, 'batch', 'batches')} read`, shareUpTo(index, file))
  }
  progress.show('checking the structure of the file')
  const problems = file.check()
  progress.clear()
  return {
    path: file.path,
    whole: lost.length === 0 && problems.length === 0,
    epoch: file.epoch ?? null,
    durability: file.durability ?? null,
    floor: file.floor,
    last: file.last ?? null,
    batches,
    events,
    payloadBytes,
    fileBytes: file.size,
    firstTime,
    lastTime,
    topics: Object.fromEntries([...topics].sort(([, a], [, b]) => b - a)),
    lost,
    problems,
  }
}

/** How many topics and problems people are shown. */
const mostShown = 20

function pretty(found: Found): string {
  const paint = paintFor(process.stdout)
  const { floor, last, batches, events, firstTime, lastTime, lost, problems } = found
  const topics = Object.entries(found.topics)
  const isEmpty = last !== null && last === floor
  const rows: [string, string][] = [
    ['epoch', found.epoch ?? 'damaged'],
    ['durability', found.durability ?? 'damaged'],
    ['indexes', isEmpty ? `none kept; the newest was ${floor}` : `${floor + 1} to ${last ?? 'nobody can say where'}`],
    ['batches', `${formatted(batches)}, with ${counted(events, 'event', 'events')}`],
    ['times', firstTime === null ? 'none' : `${time(firstTime)} to ${time(lastTime ?? firstTime)}`],
    ['payloads', counted(found.payloadBytes, 'byte', 'bytes')],
    ['file', counted(found.fileBytes, 'byte', 'bytes')],
    ...topics.slice(0, mostShown).map(([topic, count], n): [string, string] => {
      return [n === 0 ? 'topics' : '', `${plain(topic)} ${paint('dim', formatted(count))}`]
    }),
  ]
  if (topics.length > mostShown) rows.push(['', `and ${formatted(topics.length - mostShown)} more`])
  const width = Math.max(...rows.map(([name]) => columns(name))) + 2
  const lines = rows.map(([name, value]) => `  ${paint('dim', name.padEnd(width))}${value}`)
  const wrong = [...lost.map(lossText), ...problems.slice(0, mostShown).map(plain)]
  if (problems.length > mostShown) wrong.push(`and ${problems.length - mostShown} more`)
  const verdict = found.whole
    ? [paint('green', '  Every batch is whole.')]
    : wrong.map((text) => paint('red', `  ${text}`))
  return `${[paint('bold', plain(found.path)), ...lines, ...verdict].join('\n')}\n`
}

function time(ms: number): string {
  return Number.isNaN(new Date(ms).getTime()) ? `${ms} ms` : new Date(ms).toISOString()
}
