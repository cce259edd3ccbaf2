/** 16 bits of a topic, never 0. */
export function topicTag(topic: string): number {
  const hash = hashOf(topic)
  return (hash ^ (hash >>> 16)) & 0xffff || 1
}

/** 32 bits of a key, never 0. */
export function keyHash(key: string): number {
  return hashOf(key) || 1
}

function hashOf(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return hash
}

/** Tells by a record's header that nothing in it can be wanted, so that it need not be parsed. Others are looked at. */
export class TagFilter {
  readonly #topics = new Map<number, Set<number>>()
  readonly #any: ReadonlySet<number> | undefined

  constructor(topics: ReadonlyMap<string, ReadonlySet<string>>) {
    for (const [topic, keys] of topics) {
      const hashes = hashesOf(keys)
      if (topic === '*') this.#any = hashes
      else this.#topics.set(topicTag(topic), new Set([...hashes, ...(this.#topics.get(topicTag(topic)) ?? [])]))
    }
  }

  /** `tag` or `key` 0: there are several. */
  mayWant(tag: number, key: number): boolean {
    return tag === 0 || holds(this.#any, key) || holds(this.#topics.get(tag), key)
  }
}

/** 0 stands for all keys. */
function hashesOf(keys: ReadonlySet<string>): Set<number> {
  return new Set([...keys].map((key) => (key === '*' ? 0 : keyHash(key))))
}

function holds(hashes: ReadonlySet<number> | undefined, key: number): boolean {
  return hashes !== undefined && hashes.size > 0 && (key === 0 || hashes.has(0) || hashes.has(key))
}
