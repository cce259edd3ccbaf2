import type { From } from '../core/broker.ts'
import { invalid, SpillwayError, shown } from '../core/errors.ts'

/** How many topics one request may name. */
const maxTopics = 256

/** The parameters of a query string, percent-decoded. Throws `INVALID` for escapes that are no UTF-8. */
export function parseQuery(query: string): Map<string, string[]> {
  const parameters = new Map<string, string[]>()
  for (const pair of query.split('&')) {
    if (pair === '') continue
    const [name, value] = splitOnce(pair, '=').map(decode) as [string, string]
    const values = parameters.get(name)
    if (values) values.push(value)
    else parameters.set(name, [value])
  }
  return parameters
}

/** Throws `INVALID` for a parameter that is not among `known`: a misspelt one would go unnoticed. */
export function checkNames(parameters: ReadonlyMap<string, unknown>, known: readonly string[]): void {
  for (const name of parameters.keys()) {
    if (known.includes(name)) continue
    const names = known.join(', ')
    throw new SpillwayError('INVALID', `The query has the unknown parameter ${shown(name)}. Known: ${names}.`)
  }
}

/** The one value of a parameter. Throws `INVALID` if it is there twice. */
export function single(parameters: ReadonlyMap<string, readonly string[]>, name: string): string | undefined {
  const values = parameters.get(name)
  if (values && values.length > 1)
    throw new SpillwayError('INVALID', `${name} must be given once, got ${values.length} values.`)
  return values?.[0]
}

// [RFC 3339, 5.6] A date and time with its offset: no cursor looks like it.
const timestamp = /^(\d{4}-\d{2}-\d{2})[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+ -]\d{2}:\d{2})$/

/**
 * Where a reader starts: `from` is `latest`, `earliest`, a cursor or a time as RFC 3339 has it; `last` a number of batches.
 * [WHATWG HTML, 9.2] A browser sends `Last-Event-ID` when it reconnects to the URL that it began with, so that counts most.
 */
export function startOf(parameters: ReadonlyMap<string, readonly string[]>, lastEventId: string | undefined): From {
  const from = single(parameters, 'from')
  const last = single(parameters, 'last')
  if (from !== undefined && last !== undefined)
    throw new SpillwayError('INVALID', 'from and last exclude each other. Give one of them.')
  if (lastEventId) return lastEventId
  if (last !== undefined) return { last: wholeNumber('last', last) }
  const time = timestamp.exec(from ?? '')
  if (from === undefined || !time) return from || 'latest'
  // In a query a plus sign stands for a space, and is not always written as it should be.
  const since = Date.parse(from.replace(' ', '+'))
  // Date.parse takes the 31st of February for a day in March.
  const day = new Date(`${time[1]}T00:00:00Z`)
  const isDay = !Number.isNaN(day.getTime()) && day.toISOString().startsWith(time[1] as string)
  if (!isDay || Number.isNaN(since) || since < 0) throw invalid('from', 'be a time that exists, from 1970 on', from)
  return { since }
}

/** `true` or `false`; absent: `false`. */
export function parseFlag(name: string, value: string | undefined): boolean {
  if (value === undefined || value === 'false') return false
  if (value === 'true') return true
  throw invalid(name, 'be true or false', value)
}

/** The `expected` of a publish request, which has no other parameter. Throws `INVALID`. */
export function expectedIndex(query: string): number | undefined {
  const parameters = parseQuery(query)
  checkNames(parameters, ['expected'])
  const expected = single(parameters, 'expected')
  return expected === undefined ? undefined : wholeNumber('expected', expected)
}

/**
 * The id of a publish: the header `Idempotency-Key`, bare or as the quoted string of
 * draft-ietf-httpapi-idempotency-key-header, or the body's own. Throws `INVALID` where both are there and differ.
 */
export function publishId(header: string | undefined, own: string | undefined): string | undefined {
  if (header === undefined) return own
  const id = /^"([^"\\]*)"$/.exec(header)?.[1] ?? header
  if (own === undefined || own === id) return id
  throw invalid('id', `be that of the header Idempotency-Key, ${shown(id)}`, own)
}

function wholeNumber(name: string, text: string): number {
  const value = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN
  if (Number.isSafeInteger(value)) return value
  throw invalid(name, `be an integer from 0 to ${Number.MAX_SAFE_INTEGER}`, text)
}

/** `topic=T`, `topic=T:K`, `topic=T:*`, repeated. The key is what follows the first colon. Without topics: everything. */
export function parseTopics(
  values: readonly string[] | undefined,
  split: (topic: string) => readonly string[] = splitTopic,
): Record<string, string[]> {
  if (!values) return { '*': ['*'] }
  if (values.length > maxTopics)
    throw new SpillwayError('INVALID', `topic may be given ${maxTopics} times, got ${values.length}.`)
  const topics = new Map<string, string[]>()
  for (const value of values) {
    const [topic = '', key = '*'] = split(value)
    topics.set(topic, [...(topics.get(topic) ?? []), key])
  }
  return Object.fromEntries(topics)
}

function splitTopic(value: string): readonly string[] {
  const [topic, key] = splitOnce(value, ':')
  if (topic === '') throw invalid('topic', 'be a topic or topic:key', value)
  return value.includes(':') ? [topic, key] : [topic]
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator)
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)]
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch (cause) {
    throw new SpillwayError('INVALID', `The query has an escape that is no UTF-8: ${shown(text)}.`, { cause })
  }
}
