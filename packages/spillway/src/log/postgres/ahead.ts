import type { Rows } from './database.ts'

/** A page as it was asked for. */
export interface AskedPage {
  /** Up to which index batches were known when it was. */
  readonly last: number
  readonly rows: Promise<Rows | undefined>
}

/** Readers that are ahead of each other each have a page read for them; more read when they come. A page has about a MiB. */
const mostPages = 4
const mostEnds = 64
/** How long a page may wait for its reader, in milliseconds: what it holds may be gone by then. */
const freshMs = 1000

/**
 * Whoever takes the page that follows another one is taken to read on: then the next one is asked for at once, so that the
 * database makes it while the one before is used.
 */
export class Ahead {
  /** Where pages ended that were given out, oldest first. */
  readonly #ends = new Set<number>()
  readonly #pages = new Map<string, AskedPage & { readonly askedAt: number }>()

  /** The page after `after`, if it was asked for ahead. */
  take(after: number, limit: number): AskedPage | undefined {
    const place = `${after} ${limit}`
    const page = this.#pages.get(place)
    this.#pages.delete(place)
    return page && performance.now() - page.askedAt < freshMs ? page : undefined
  }

  /** Whether a reader that is given the page after `after`, up to `end`, is one that reads on. */
  follows(after: number, end: number): boolean {
    const isFollowed = this.#ends.delete(after)
    this.#ends.add(end)
    if (this.#ends.size > mostEnds) dropFirst(this.#ends)
    return isFollowed
  }

  put(after: number, limit: number, { last, rows }: AskedPage): void {
    this.#pages.set(`${after} ${limit}`, { last, rows, askedAt: performance.now() })
    if (this.#pages.size > mostPages) dropFirst(this.#pages)
  }
}

function dropFirst<K>(entries: Set<K> | Map<K, unknown>): void {
  for (const key of entries.keys()) {
    entries.delete(key)
    return
  }
}
