import { type CelInput, type CelList, type CelMap, celList, celMap } from '@bufbuild/cel'

// Payloads are shared by all filters and do not change: each list is converted once for all of them.
const lists = new WeakMap<readonly unknown[], CelList>()
const maps = new WeakMap<object, CelMap>()

/**
 * A JSON value for expressions. Never the value itself: @bufbuild/cel would take an object with a `$typeName` for a
 * Protobuf message, and fail on one with a `constructor`.
 */
export function celOf(value: unknown): CelInput {
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return value
  if (typeof value !== 'object' || value === null) return null
  return Array.isArray(value) ? listOf(value) : mapOf(value)
}

function listOf(values: readonly unknown[]): CelList {
  let list = lists.get(values)
  if (!list) {
    list = celList(values.map(celOf))
    lists.set(values, list)
  }
  return list
}

function mapOf(object: object): CelMap {
  let map = maps.get(object)
  if (!map) {
    const members = new Members(object as Readonly<Record<string, unknown>>)
    // The library's own `has` says that a member which is null is not there.
    map = Object.assign(celMap(members), { has: (key: unknown) => members.has(key) })
    maps.set(object, map)
  }
  return map
}

/** The own members of a JSON object, each converted when it is asked for. */
class Members implements ReadonlyMap<string, CelInput> {
  readonly #object: Readonly<Record<string, unknown>>
  #keys: readonly string[] | undefined

  constructor(object: Readonly<Record<string, unknown>>) {
    this.#object = object
  }

  // The size is asked for before a loop or a comparison is paid: it must cost little the second time.
  #names(): readonly string[] {
    this.#keys ??= Object.keys(this.#object)
    return this.#keys
  }

  get size(): number {
    return this.#names().length
  }

  has(key: unknown): boolean {
    return typeof key === 'string' && Object.hasOwn(this.#object, key)
  }

  get(key: unknown): CelInput | undefined {
    return typeof key === 'string' && Object.hasOwn(this.#object, key) ? celOf(this.#object[key]) : undefined
  }

  forEach(visit: (value: CelInput, key: string, map: ReadonlyMap<string, CelInput>) => void): void {
    for (const [key, value] of this.entries()) visit(value, key, this)
  }

  keys(): MapIterator<string> {
    return this.#names().values()
  }

  *values(): MapIterator<CelInput> {
    for (const key of this.#names()) yield celOf(this.#object[key])
  }

  *entries(): MapIterator<[string, CelInput]> {
    for (const key of this.#names()) yield [key, celOf(this.#object[key])]
  }

  [Symbol.iterator](): MapIterator<[string, CelInput]> {
    return this.entries()
  }
}
