import { invalid, SpillwayError, shown } from '../core/errors.ts'
import { type BatchInput, type EventInput, JsonText } from '../core/event.ts'

/** A batch as it comes over the wire. */
export interface ParsedBatch extends BatchInput {
  /** Names the publish, so that it can be repeated. */
  id?: string
}

/**
 * Reads one batch: an event, an array of events, or `{"index"?, "id"?, "events"}`. Payloads are cut out of `text`, not parsed and
 * printed anew, so numbers beyond 2^53 and the order of keys stay as they came. `at` is how errors call it.
 * Throws `INVALID`; what an event may hold is checked when it is published.
 */
export function parseBatch(text: string, at: string, known: readonly string[] = batchFields): ParsedBatch {
  const value = parseJson(text, at)
  if (Array.isArray(value)) return { events: parseEvents(value, text, at) }
  if (!isObject(value)) throw invalid(at, 'be an event, an array of events or {"index", "events"}', value)
  if (!Object.hasOwn(value, 'events')) return { events: [parseEvent(value, text, at)] }
  const members = memberTexts(text, at)
  for (const field of members.keys()) {
    if (!known.includes(field))
      throw new SpillwayError('INVALID', `${at} has the unknown field ${shown(field)}. Known: ${known.join(', ')}.`)
  }
  const { index, id, events: list } = value
  if (!Array.isArray(list)) throw invalid(`${at}.events`, 'be an array', list)
  const events = parseEvents(list, members.get('events') as string, `${at}.events`)
  const batch: ParsedBatch = { events }
  if (index !== undefined) batch.index = index as number
  if (id !== undefined) batch.id = id as string
  return batch
}

const batchFields = ['index', 'id', 'events']
/** Lines are stored all or none, so that an id of each would say nothing. */
const lineFields = ['index', 'events']

/** Reads a batch from each line that is not blank. */
export function parseBatches(text: string): BatchInput[] {
  const batches: BatchInput[] = []
  for (const [number, line] of text.split('\n').entries()) {
    const name = `line ${number + 1}`
    if (line.trim() !== '') batches.push({ ...parseBatch(line, name, lineFields), name })
  }
  return batches
}

function parseEvents(values: readonly unknown[], text: string, at: string): EventInput[] {
  const texts = elementTexts(text)
  return values.map((value, position) => {
    if (isObject(value)) return parseEvent(value, texts[position] as string, `${at}[${position}]`)
    throw invalid(`${at}[${position}]`, 'be an event', value)
  })
}

function parseEvent(value: Record<string, unknown>, text: string, at: string): EventInput {
  const payload = memberTexts(text, at).get('payload')
  const event = value as unknown as EventInput
  return payload === undefined ? event : { ...event, payload: new JsonText(payload) }
}

function parseJson(text: string, at: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new SpillwayError('INVALID', `${at} is not JSON: ${cause instanceof Error ? cause.message : String(cause)}`, {
      cause,
    })
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The members of a JSON object as text. Two members of one name are refused: readers would not agree on which one counts. */
function memberTexts(text: string, at: string): Map<string, string> {
  const members = new Map<string, string>()
  for (const [start, end] of parts(text)) {
    const nameEnd = skipString(text, start)
    const name = JSON.parse(text.slice(start, nameEnd)) as string
    if (members.has(name)) throw new SpillwayError('INVALID', `${at} has the field ${shown(name)} twice.`)
    members.set(name, text.slice(text.indexOf(':', nameEnd) + 1, end).trim())
  }
  return members
}

function elementTexts(text: string): string[] {
  return [...parts(text)].map(([start, end]) => text.slice(start, end))
}

/** Start and end of what stands between the outermost brackets and commas of `text`, which is valid JSON already. */
function* parts(text: string): Generator<[start: number, end: number]> {
  let depth = 0
  let start = -1
  for (let i = 0; i < text.length; i++) {
    const char = text[i] as string
    if (char === '}' || char === ']') depth--
    if (start >= 0 && (depth === 0 || (depth === 1 && char === ','))) {
      yield [start, i]
      start = -1
    } else if (start < 0 && depth === 1 && char > ' ') start = i
    if (char === '{' || char === '[') depth++
    if (char === '"') i = skipString(text, i) - 1
  }
}

/** The position after the string that starts at `start`. */
function skipString(text: string, start: number): number {
  let i = start + 1
  while (text[i] !== '"') i += text[i] === '\\' ? 2 : 1
  return i + 1
}
