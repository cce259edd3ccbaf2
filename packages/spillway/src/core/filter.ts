import { invalid, shown } from './errors.ts'
import type { StoredBatch, StoredEvent, StreamEvent } from './event.ts'
import { getOrMake } from './get-or-make.ts'

/** Which keys of which topics a reader wants; `*` as a topic or a key stands for all. Names are literal and case-sensitive. */
export type TopicFilter = Readonly<Record<string, readonly string[]>>

export interface FilterOptions {
  /** Default: everything. No topics, or a topic without keys, want nothing. */
  topics?: TopicFilter | undefined
  /** Namespaces that pass, `*` for all. Events without a namespace always pass. Default: all. */
  namespaces?: readonly string[] | undefined
  /** Asked last, for events that passed the rest. */
  filter?: ((event: StreamEvent) => boolean) | undefined
}

/** What an event is found by. */
export type Keyed = Pick<StoredEvent, 'topic' | 'key' | 'namespace' | 'filterKeys'>

const none: readonly StoredEvent[] = []

/** What one reader wants, compiled. */
export class Filter {
  /** Topic to wanted keys; `*` as either stands for all. */
  readonly topics: ReadonlyMap<string, ReadonlySet<string>>
  readonly #any: ReadonlySet<string> | undefined
  readonly #namespaces: ReadonlySet<string> | undefined
  readonly #custom: ((event: StreamEvent) => boolean) | undefined
  readonly #all: boolean

  /** Throws `INVALID` that names the field. */
  constructor({ topics = { '*': ['*'] }, namespaces, filter }: FilterOptions = {}) {
    this.topics = compileTopics(topics)
    this.#any = this.topics.get('*')
    if (namespaces !== undefined) checkNames('namespaces', namespaces)
    if (filter !== undefined && typeof filter !== 'function') throw invalid('filter', 'be a function', filter)
    this.#namespaces = namespaces && !namespaces.includes('*') ? new Set(namespaces) : undefined
    this.#custom = filter
    this.#all = this.#any?.has('*') === true && !this.#namespaces && !filter
  }

  /** The wanted events of `batch`: its own array if that is all of them. */
  select(batch: StoredBatch): readonly StoredEvent[] {
    const { events } = batch
    if (this.#all) return events
    // Most batches match whole or not at all, and have one event.
    let selected: StoredEvent[] | undefined
    for (let i = 0; i < events.length; i++) {
      const event = events[i] as StoredEvent
      if (this.matches(event)) selected?.push(event)
      else selected ??= events.slice(0, i)
    }
    if (!selected) return events
    return selected.length === 0 ? none : selected
  }

  matches(event: StoredEvent): boolean {
    return (
      this.#wantsKey(event) && this.#wantsNamespace(event) && (this.#custom === undefined || this.#custom(event.view))
    )
  }

  #wantsKey(event: StoredEvent): boolean {
    return holds(this.#any, event) || holds(this.topics.get(event.topic), event)
  }

  #wantsNamespace({ namespace }: StoredEvent): boolean {
    return namespace === '' || !this.#namespaces || this.#namespaces.has(namespace)
  }
}

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

/** Readers found by the topics and keys that they want, so that an event costs in proportion to those that want it. */
export class FilterIndex<Reader extends { readonly filter: Filter }> {
  readonly #topics = new Map<string, Map<string, Set<Reader>>>()

  add(reader: Reader): void {
    for (const [topic, keys] of reader.filter.topics) {
      const byKey = getOrMake(this.#topics, topic, () => new Map<string, Set<Reader>>())
      for (const key of keys) getOrMake(byKey, key, () => new Set<Reader>()).add(reader)
    }
  }

  delete(reader: Reader): void {
    for (const [topic, keys] of reader.filter.topics) {
      const byKey = this.#topics.get(topic)
      for (const key of keys) {
        const readers = byKey?.get(key)
        readers?.delete(reader)
        if (readers?.size === 0) byKey?.delete(key)
      }
      if (byKey?.size === 0) this.#topics.delete(topic)
    }
  }

  /** Calls `found` for each reader whose topics and keys want `event`; for some more than once. */
  visit(event: StoredEvent, found: (reader: Reader) => void): void {
    visitKeys(this.#topics.get(event.topic), event, found)
    visitKeys(this.#topics.get('*'), event, found)
  }
}

function visitKeys<Reader>(
  byKey: Map<string, Set<Reader>> | undefined,
  event: StoredEvent,
  found: (reader: Reader) => void,
): void {
  if (!byKey) return
  byKey.get('*')?.forEach(found)
  byKey.get(event.key)?.forEach(found)
  for (const key of event.filterKeys) byKey.get(key)?.forEach(found)
}
