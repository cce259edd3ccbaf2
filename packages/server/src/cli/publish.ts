import { fstatSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { LineSplitter, LineTooLong } from '../lines.ts'
import { jsonOf, Refused, type Remote, request, Unreachable } from '../remote.ts'
import { counted, formatted } from '../terminal.ts'
import { type Command, defineCommand, type Values } from './command.ts'
import { Failure, quoted, UsageError } from './errors.ts'
import { Progress } from './progress.ts'
import { asFailure, remoteOf, remoteOptions, tokenNote } from './remote-options.ts'
import { integer } from './values.ts'

const options = {
  topic: { type: 'string', value: '<name>', help: 'Topic of the event.' },
  type: { type: 'string', value: '<name>', help: 'What happened, such as OrderPlaced.' },
  key: { type: 'string', value: '<key>', help: 'What it happened to.' },
  namespace: { type: 'string', value: '<name>', help: 'Namespace of the event.' },
  'filter-key': {
    type: 'string',
    multiple: true,
    value: '<key>',
    help: 'Another key under which readers find the event. Repeat for more.',
  },
  payload: { type: 'string', value: '<json>', help: 'What readers get, as JSON.' },
  'payload-file': { type: 'string', value: '<file>', help: 'Read the payload from a file; - is standard input.' },
  index: { type: 'string', value: '<n>', help: 'Publish under this index, which must be above the newest.' },
  id: {
    type: 'string',
    value: '<id>',
    help: 'Names this publish, so that repeating it after a lost answer stores nothing twice.',
  },
  expected: { type: 'string', value: '<n>', help: 'Publish only if this is the newest index.' },
  ...remoteOptions,
} as const

/** `spillway publish`. */
export const publish: Command = defineCommand({
  name: 'publish',
  summary: 'Publish one event, or each line of standard input.',
  usage: ['spillway publish --topic <name> --type <name> [options]', 'spillway publish [--url <url>] < batches.ndjson'],
  options,
  notes: [
    'A line of standard input is one batch: an event {"topic","type","key"?,"namespace"?,"filterKeys"?,"payload"?}, an array of events, or {"index"?,"events"}. Lines are sent up to 500 or 512 KiB at a time; those of one request are stored all or none, and the first request that is refused ends it.',
    'Prints {"index","cursor"} of the last batch.',
    tokenNote,
  ],
  examples: [
    'spillway publish --topic Order --type OrderPlaced --key A1 --payload \'{"total":12}\'',
    'spillway publish --topic Report --type ReportReady --payload-file report.json',
    'spillway publish < events.ndjson',
  ],
  run: runPublish,
})

type Given = Values<typeof options>

async function runPublish(values: Given): Promise<number> {
  const remote = remoteOf(values.url)
  const described = Object.entries(values).some(
    ([name, value]) => name !== 'url' && name !== 'help' && value !== undefined && value.length !== 0,
  )
  const stored = described ? await publishOne(remote, values) : await publishLines(remote)
  if (stored) process.stdout.write(`${JSON.stringify({ index: stored.index, cursor: stored.cursor })}\n`)
  return 0
}

interface Stored {
  readonly index: number
  readonly cursor: string
}

async function publishOne(remote: Remote, values: Given): Promise<Stored> {
  const { topic, type, key, namespace, 'filter-key': filterKeys } = values
  for (const name of ['topic', 'type'] as const) if (!values[name]) throw new UsageError(`--${name} is required.`)
  const index = values.index === undefined ? undefined : integer('--index', values.index, 1, Number.MAX_SAFE_INTEGER)
  const expected =
    values.expected === undefined ? undefined : integer('--expected', values.expected, 0, Number.MAX_SAFE_INTEGER)
  const id = values.id === undefined ? undefined : checkedId(values.id)
  const payload = await payloadText(values)
  const names = JSON.stringify({ topic, type, key, namespace, ...(filterKeys.length > 0 ? { filterKeys } : {}) })
  // Not parsed and printed anew: numbers beyond 2^53 stay as they are.
  const event = payload === undefined ? names : `${names.slice(0, -1)},"payload":${payload}}`
  const body = index === undefined ? event : `{"index":${index},"events":[${event}]}`
  try {
    return await post(remote, 'application/json', body, { id, expected })
  } catch (error) {
    throw asFailure(error)
  }
}

/** What a header can hold, and does not read as the quoted form of another. */
function checkedId(id: string): string {
  if (/^[!#-~][!-~]*$/.test(id)) return id
  throw new UsageError(`--id must be visible ASCII characters and not begin with a quote, got ${quoted(id)}.`)
}

async function payloadText({ payload, 'payload-file': file }: Given): Promise<string | undefined> {
  if (payload !== undefined && file !== undefined)
    throw new UsageError('--payload and --payload-file exclude each other.')
  if (file === undefined) return payload === undefined ? undefined : checkedJson('--payload', payload)
  let bytes: Uint8Array
  try {
    bytes = file === '-' ? Buffer.concat(await process.stdin.toArray()) : await readFile(file)
  } catch (cause) {
    throw new Failure(`--payload-file ${file} cannot be read: ${(cause as Error).message}`, { cause })
  }
  return checkedJson(`--payload-file ${file}`, utf8(bytes, file))
}

function utf8(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new Failure(`--payload-file ${file} must be UTF-8.`, { cause })
  }
}

function checkedJson(option: string, text: string): string {
  try {
    JSON.parse(text)
    return text
  } catch (cause) {
    throw new UsageError(`${option} must be JSON, got ${quoted(text)}. A text needs its quotes: '"text"'.`, { cause })
  }
}

async function post(
  remote: Remote,
  type: string,
  body: string | Uint8Array<ArrayBuffer>,
  { id, expected }: { id?: string | undefined; expected?: number | undefined } = {},
): Promise<Stored & { batches: number }> {
  const headers = { 'content-type': type, ...(id !== undefined && { 'idempotency-key': id }) }
  const response = await request(remote, expected === undefined ? 'v1/events' : `v1/events?expected=${expected}`, {
    method: 'POST',
    headers,
    body,
    signal: AbortSignal.timeout(30_000),
  })
  return (await jsonOf(remote, response)) as unknown as Stored & { batches: number }
}

const maxRequestBytes = 512 * 1024
const maxRequestLines = 500

/** Lines of the input that go out as one request. */
interface Chunk {
  readonly lines: Uint8Array[]
  /** The number of each in the input, from 1. */
  readonly numbers: number[]
  bytes: number
}

/**
 * Sends standard input on as it comes: at most one request's worth is in memory, and a slow writer's line does not wait
 * for others.
 */
async function publishLines(remote: Remote): Promise<Stored | undefined> {
  if (process.stdin.isTTY)
    throw new UsageError('Nothing to publish. Give --topic and --type, or NDJSON on standard input.')
  if (fstatSync(process.stdin.fd).isDirectory()) throw new UsageError('Standard input is a directory, not NDJSON.')
  const publisher = new LinePublisher(remote)
  const splitter = new LineSplitter(maxRequestBytes)
  try {
    for await (const bytes of process.stdin) {
      for (const line of splitter.push(bytes as Uint8Array)) await publisher.add(line)
      await publisher.flush()
    }
    const rest = splitter.rest()
    if (rest) await publisher.add(rest)
    await publisher.flush()
  } catch (error) {
    if (!(error instanceof LineTooLong)) throw error
    await publisher.flush()
    const advice = 'An event of this size can be published by itself, with --payload-file.'
    publisher.stop(`Line ${publisher.next} has more than ${maxRequestBytes} bytes. ${advice}`)
  }
  return publisher.finish()
}

class LinePublisher {
  readonly #remote: Remote
  readonly #progress = new Progress()
  #chunk: Chunk = { lines: [], numbers: [], bytes: 0 }
  #read = 0
  #storedUpTo = 0
  #batches = 0
  #last: Stored | undefined

  constructor(remote: Remote) {
    this.#remote = remote
  }

  /** The number of the line that comes next. */
  get next(): number {
    return this.#read + 1
  }

  async add(line: Uint8Array): Promise<void> {
    const { bytes, lines } = this.#chunk
    if (lines.length >= maxRequestLines || bytes + line.length + 1 > maxRequestBytes) await this.flush()
    this.#read++
    if (isBlank(line)) return
    this.#chunk.lines.push(line)
    this.#chunk.numbers.push(this.#read)
    this.#chunk.bytes += line.length + 1
  }

  /** Sends what was added. */
  async flush(): Promise<void> {
    const chunk = this.#chunk
    if (chunk.lines.length === 0) return
    this.#chunk = { lines: [], numbers: [], bytes: 0 }
    const body = Buffer.concat(chunk.lines.flatMap((line) => [line, newline]))
    try {
      const stored = await post(this.#remote, 'application/x-ndjson', body)
      this.#last = stored
      this.#batches += stored.batches
    } catch (error) {
      this.#fail(chunk, error)
    }
    this.#storedUpTo = this.#read
    this.#progress.show(`${formatted(this.#batches)} batches published, line ${formatted(this.#read)}`)
  }

  finish(): Stored | undefined {
    this.#progress.clear()
    const summary =
      this.#batches === 0
        ? 'The input holds no line to publish.'
        : `${counted(this.#batches, 'batch', 'batches')} published from ${counted(this.#read, 'line', 'lines')}.`
    process.stderr.write(`${summary}\n`)
    return this.#last
  }

  /** Ends with what went wrong and which lines are stored. */
  stop(reason: string, unsure?: readonly [first: number, last: number]): never {
    this.#progress.clear()
    const newest = this.#last ? ` (newest index ${this.#last.index})` : ''
    const stored = this.#storedUpTo > 0 ? `Stored: ${span(1, this.#storedUpTo)}${newest}.` : 'Stored: none.'
    const rest = unsure
      ? `Perhaps stored: ${span(...unsure)}. Not stored: what follows.`
      : `Not stored: from line ${this.#storedUpTo + 1} on.`
    throw new Failure(`${reason} ${stored} ${rest}`)
  }

  #fail({ numbers }: Chunk, error: unknown): never {
    const range = [numbers[0] ?? 0, numbers.at(-1) ?? 0] as const
    if (error instanceof Refused) {
      this.stop(`Refused (${span(...range)}): ${inInput(error.message, numbers)}`, error.own ? undefined : range)
    }
    if (error instanceof Unreachable) this.stop((asFailure(error) as Error).message, error.sent ? range : undefined)
    throw error
  }
}

/** The server counts the lines of a request; whoever reads its message has the input before them. */
function inInput(message: string, numbers: readonly number[]): string {
  return message.replace(/\bline ([0-9]+)\b/, (found, number) => {
    const line = numbers[Number(number) - 1]
    return line === undefined ? found : `line ${line}`
  })
}

const newline = Buffer.from('\n')

function isBlank(line: Uint8Array): boolean {
  return line.every((byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d)
}

function span(first: number, last: number): string {
  return first === last ? `line ${first}` : `lines ${first} to ${last}`
}
