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

/** The one value of a parameter. Throws `INVALID` if it is there twice. */
export function single(parameters: ReadonlyMap<string, readonly string[]>, name: string): string | undefined {
  const values = parameters.get(name)
  if (values && values.length > 1)
    throw new SpillwayError('INVALID', `${name} must be given once, got ${values.length} values.`)
  return values?.[0]
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
