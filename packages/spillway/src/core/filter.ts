import { invalid } from './errors.ts'
import type { StoredBatch, StoredEvent, StreamEvent } from './event.ts'
import { getOrMake } from './get-or-make.ts'
import { Permit } from './rights.ts'
import { checkNames, compileTopics, holds, type Keyed, type TopicFilter } from './topics.ts'

export interface FilterOptions {
  /** Default: everything. No topics, or a topic without keys, want nothing. */
  topics?: TopicFilter | undefined
  /** Namespaces that pass, `*` for all. Events without a namespace always pass. Default: all. */
  namespaces?: readonly string[] | undefined
  /** Asked last, for events that passed the rest and may be read. */
  filter?: ((event: StreamEvent) => boolean) | undefined
}

const none: readonly StoredEvent[] = []

/** What one reader wants, compiled. */
export class Filter {
  /** Topic to wanted keys; `*` as either stands for all. */
  readonly topics: ReadonlyMap<string, ReadonlySet<string>>
  /** What may be read of it. */
  readonly permit: Permit
  readonly #options: FilterOptions
  readonly #isTransient: boolean
  readonly #any: ReadonlySet<string> | undefined
  readonly #namespaces: ReadonlySet<string> | undefined
  readonly #custom: ((event: StreamEvent) => boolean) | undefined
  readonly #limited: boolean
  readonly #all: boolean
  /** Whether a function of the reader's is asked. */
  readonly isCustom: boolean

  /** `isTransient`: what the filter function is shown is not kept. Throws `INVALID` that names the field. */
  constructor(options: FilterOptions = {}, permit: Permit = Permit.everything, isTransient = false) {
    const { topics = { '*': ['*'] }, namespaces, filter } = options
    this.permit = permit
    this.#options = options
    this.#isTransient = isTransient
    this.topics = compileTopics(topics)
    this.#any = this.topics.get('*')
    if (namespaces !== undefined) checkNames('namespaces', namespaces)
    if (filter !== undefined && typeof filter !== 'function') throw invalid('filter', 'be a function', filter)
    this.#namespaces = namespaces && !namespaces.includes('*') ? new Set(namespaces) : undefined
    this.#custom = filter
    this.isCustom = filter !== undefined
    this.#limited = !permit.isEverything
    this.#all = this.#any?.has('*') === true && !this.#namespaces && !filter && !this.#limited
  }

  /** The same wishes, as far as `permit` allows. */
  under(permit: Permit): Filter {
    return permit.key === this.permit.key ? this : new Filter(this.#options, permit, this.#isTransient)
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
    if (!this.#wantsKey(event) || !this.#wantsNamespace(event)) return false
    // Before the reader's own: that could tell by its time or its failure what it was shown.
    if (this.#limited && !this.permit.mayRead(event)) return false
    return this.#custom === undefined || this.#custom(this.#isTransient ? event.glance() : event.view)
  }

  /** Whether an event passes by its names; neither rights nor the filter function are asked. */
  wants(event: Keyed): boolean {
    return this.#wantsKey(event) && this.#wantsNamespace(event)
  }

  #wantsKey(event: Keyed): boolean {
    return holds(this.#any, event) || holds(this.topics.get(event.topic), event)
  }

  #wantsNamespace({ namespace }: Keyed): boolean {
    return namespace === '' || !this.#namespaces || this.#namespaces.has(namespace)
  }
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
