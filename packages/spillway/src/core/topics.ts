import { invalid, shown } from './errors.ts'
import type { StoredEvent } from './event.ts'

/** Which keys of which topics a reader wants; `*` as a topic or a key stands for all. Names are literal and case-sensitive. */
export type TopicFilter = Readonly<Record<string, readonly string[]>>

/** What an event is found by. */
export type Keyed = Pick<StoredEvent, 'topic' | 'key' | 'namespace' | 'filterKeys'>

/** Whether `event` is found by one of `keys`. */
export function holds(keys: ReadonlySet<string> | undefined, event: Keyed): boolean {
  if (!keys) return false
  if (keys.has('*') || keys.has(event.key)) return true
  for (const key of event.filterKeys) if (keys.has(key)) return true
  return false
}

/** Topic to keys. Throws `INVALID` that names the `field`. */
export function compileTopics(topics: TopicFilter, field = 'topics'): Map<string, Set<string>> {
  // A Map has no entries of its own and would mean: nothing.
  if (typeof topics !== 'object' || topics === null || Symbol.iterator in topics) {
    throw invalid(field, 'be an object of topic: [keys]', topics)
  }
  const compiled = new Map<string, Set<string>>()
  for (const [topic, keys] of Object.entries(topics)) {
    checkNames(`${field}[${shown(topic)}]`, keys)
    compiled.set(topic, new Set(keys))
  }
  return compiled
}

/** Throws `INVALID` unless `names` are strings. */
export function checkNames(field: string, names: unknown): asserts names is readonly string[] {
  if (Array.isArray(names) && names.every((name) => typeof name === 'string')) return
  throw invalid(field, 'be an array of strings', names)
}
