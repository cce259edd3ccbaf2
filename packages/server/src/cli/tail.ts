import { once } from 'node:events'
import { parseExact } from '../exact-json.ts'
import { type FollowOptions, follow, type Loss, StreamEnded, type StreamMessage } from '../follow.ts'
import { columns, cut, type Paint, paintFor, plain, widthOf } from '../terminal.ts'
import { type Command, defineCommand, type Values } from './command.ts'
import { Failure, quoted, UsageError } from './errors.ts'
import { asFailure, remoteOf, remoteOptions, tokenNote } from './remote-options.ts'
import { integer } from './values.ts'

const options = {
  topic: {
    type: 'string',
    multiple: true,
    value: '<topic[:key]>',
    help: 'Only events of this topic, or of this key in it. Repeat for more. Default: all',
  },
  namespace: {
    type: 'string',
    multiple: true,
    value: '<name>',
    help: 'Only events of this namespace, and those without one. Repeat for more.',
  },
  filter: {
    type: 'string',
    value: '<expression>',
    help: "Only events that fulfil this, such as 'payload.total > 100'; docs/filters.md has the language",
  },
  from: {
    type: 'string',
    value: '<place>',
    help: 'Where to start: latest (only what is new), earliest (all that is kept), a cursor, or a time such as 2026-11-24T10:00:00Z. Default: latest',
  },
  last: { type: 'string', value: '<n>', help: 'Start with the newest <n> batches.' },
  count: { type: 'string', value: '<n>', help: 'End after this many batches.' },
  json: { type: 'boolean', help: 'One JSON message a line. Default where the output is not a terminal' },
  pretty: { type: 'boolean', help: 'One line an event, for people. Default in a terminal' },
  ...remoteOptions,
} as const

/** `spillway tail`. */
export const tail: Command = defineCommand({
  name: 'tail',
  summary: 'Follow a stream, and resume it by itself when the connection is lost.',
  usage: ['spillway tail [options]'],
  options,
  notes: [
    'Losses are shown in place: "gap" if batches were dropped before they were read, "reset" if the server began a new history. Notices about the connection go to standard error.',
    'Each JSON message has a "cursor"; `--from <cursor>` goes on after it.',
    tokenNote,
  ],
  examples: [
    'spillway tail',
    'spillway tail --topic Host --topic Process:4711 --from earliest',
    "spillway tail --json --from earliest | jq '.events[]?.type'",
    'spillway tail --last 20',
    "spillway tail --topic Order --filter 'payload.total > 100'",
    'spillway tail --json --count 1 > next-batch.json',
  ],
  run: runTail,
})

async function runTail(values: Values<typeof options>): Promise<number> {
  const remote = remoteOf(values.url)
  if (values.json && values.pretty) throw new UsageError('--json and --pretty exclude each other.')
  for (const topic of values.topic) {
    if (/^(:|$)/.test(topic)) throw new UsageError(`--topic must be a topic or topic:key, got ${quoted(topic)}.`)
  }
  const count = values.count === undefined ? Number.POSITIVE_INFINITY : integer('--count', values.count, 1, 2 ** 53 - 1)
  const { topic: topics, namespace: namespaces, filter } = values
  const start = startOf(values)
  const isPretty = values.pretty || (!values.json && process.stdout.isTTY === true)
  endQuietly()
  const onNotice = (notice: string) => process.stderr.write(`spillway tail: ${plain(notice)}\n`)
  await print(
    { remote, topics, namespaces, ...(filter !== undefined && { filter }), ...start, onNotice },
    isPretty ? pretty : ndjson,
    count,
  )
  return 0
}

function startOf({ from = 'latest', last }: Values<typeof options>): Pick<FollowOptions, 'from' | 'last'> {
  if (from === '') throw new UsageError('--from must be latest, earliest, a cursor or a time, got "".')
  if (last === undefined) return { from }
  if (from !== 'latest') throw new UsageError('--from and --last exclude each other.')
  return { from, last: integer('--last', last, 0, Number.MAX_SAFE_INTEGER) }
}

/** Whoever stops reading, with ctrl-C or by closing the pipe, has seen enough. */
function endQuietly(): void {
  process.on('SIGINT', () => process.exit(0))
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0)
    process.stderr.write(`spillway tail: Cannot write: ${error.message}\n`)
    process.exit(1)
  })
}

async function print(options: FollowOptions, format: (message: StreamMessage) => string, count: number): Promise<void> {
  let left = count
  try {
    for await (const message of follow(options)) {
      // While the output takes nothing, nothing is read, and the server keeps our place.
      if (!process.stdout.write(format(message))) await once(process.stdout, 'drain')
      if ('events' in message.value && --left === 0) return
    }
  } catch (error) {
    throw error instanceof StreamEnded ? new Failure(error.message, { cause: error }) : asFailure(error)
  }
}

function ndjson({ line }: StreamMessage): string {
  return `${line}\n`
}

function pretty({ line, value }: StreamMessage): string {
  const paint = paintFor(process.stdout)
  const time = new Date().toTimeString().slice(0, 8)
  if ('gap' in value) return `${paint('yellow', `${time} ${gapText(value.gap)}`)}\n`
  if ('reset' in value) return `${paint('yellow', `${time} ${resetText(value.reset)}`)}\n`
  const { events } = parseExact(line) as { events: readonly ShownEvent[] }
  const start = `${time} ${String(value.index).padStart(6)}`
  return events.map((event) => `${eventLine(start, event, paint)}\n`).join('')
}

interface ShownEvent {
  readonly topic: string
  readonly type: string
  readonly key: string
  readonly namespace: string
  readonly payload: unknown
}

function eventLine(start: string, { topic, type, key, namespace, payload }: ShownEvent, paint: Paint): string {
  const names = [topic, type, ...(namespace ? [namespace] : []), key].map(plain)
  const head = `${start} ${names.join(' ')} `
  const room = Math.max(10, widthOf(process.stdout) - columns(head))
  const [first, ...others] = names
  const body = cut(plain(JSON.stringify(payload) ?? 'null'), room)
  return `${paint('dim', start)} ${paint('cyan', first ?? '')} ${others.join(' ')} ${paint('dim', body)}`
}

function gapText({ after, before, reason }: Loss): string {
  return plain(`--- gap: batches after ${after} and before ${before} may be missing (${reason}) ---`)
}

function resetText({ after, before }: Loss): string {
  return plain(
    `--- reset: the server began a new history; what came after ${after} of the old one may be missing, this one goes on with ${before} ---`,
  )
}
