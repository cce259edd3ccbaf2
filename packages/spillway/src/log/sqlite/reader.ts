import { DatabaseSync } from 'node:sqlite'
import { SpillwayError } from '../../core/errors.ts'
import type { LogStart } from '../../core/log.ts'
import { isCorrupt, patience, type RowPage, Table } from './table.ts'

/** A connection that only reads, beside the one that writes or without it. */
export class Reader {
  readonly #path: string
  readonly #db: DatabaseSync
  readonly #table: Table

  /** Throws what SQLite throws. */
  constructor(path: string) {
    this.#path = path
    this.#db = new DatabaseSync(path, { readOnly: true })
    this.#db.exec(patience)
    this.#table = new Table(this.#db)
  }

  /** Throws `LOG_CORRUPT` or `LOG_FAILED`. */
  read(after: number, limit: number, maxBytes: number, last: number): RowPage {
    return this.#try(() => this.#table.read(after, limit, maxBytes, last))
  }

  /** Throws `LOG_CORRUPT` or `LOG_FAILED`. */
  locate(start: LogStart): number {
    return this.#try(() => this.#table.locate(start))
  }

  close(): void {
    this.#db.close()
  }

  #try<T>(read: () => T): T {
    try {
      return read()
    } catch (cause) {
      if (cause instanceof SpillwayError) throw cause
      const { message } = cause as Error
      const code = isCorrupt(cause) ? 'LOG_CORRUPT' : 'LOG_FAILED'
      throw new SpillwayError(code, `${this.#path} could not be read: ${message}.`, { cause })
    }
  }
}
