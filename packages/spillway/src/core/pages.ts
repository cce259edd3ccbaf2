import type { LogPage } from './log.ts'

/** Pages of a log that are being read: readers that are at one place share one. After a restart they come in thousands. */
export class Pages {
  readonly #asked = new Map<string, Promise<LogPage>>()

  /** How many are being read. */
  get size(): number {
    return this.#asked.size
  }

  /** The page after `after` that is being read already, or else what `read` gives. */
  share(after: number, limit: number, read: () => Promise<LogPage>): Promise<LogPage> {
    const place = `${after} ${limit}`
    let page = this.#asked.get(place)
    if (!page) {
      page = read().finally(() => this.#asked.delete(place))
      this.#asked.set(place, page)
    }
    return page
  }
}
