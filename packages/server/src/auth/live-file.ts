import type { ServerLog } from '../log.ts'
import { readChecked } from './checked-file.ts'
import { FileWatch } from './file-watch.ts'

export interface LiveFileOptions<T> {
  readonly file: string
  /** Throws `SpillwayError` for what cannot be used. */
  readonly parse: (text: string) => T
  /** Called after `value` became another. */
  readonly onChange: (value: T, before: T) => void
  readonly log: ServerLog
  /** Milliseconds between looks at a file whose changes nobody tells. Default 1000. */
  readonly interval?: number | undefined
}

/**
 * The newest usable content of a file.
 *
 * A content that cannot be used changes nothing, and neither does a file that is gone: what was read last stays in force
 * and the log says so. Otherwise a slip of an editor would lock everybody out, or an attacker who can only delete.
 */
export class LiveFile<T> {
  readonly #options: LiveFileOptions<T>
  readonly #watch: FileWatch
  #value: T
  #problem: string | undefined

  /** Rejects with `CONFIG` if the file cannot be used. */
  static async open<T>(options: LiveFileOptions<T>): Promise<LiveFile<T>> {
    return new LiveFile(options, await readChecked(options.file, options.parse))
  }

  private constructor(options: LiveFileOptions<T>, value: T) {
    this.#options = options
    this.#value = value
    this.#watch = new FileWatch(options.file, () => this.#look(), options.interval)
  }

  get value(): T {
    return this.#value
  }

  close(): Promise<void> {
    return this.#watch.close()
  }

  async #look(): Promise<void> {
    const { file, parse, onChange, log } = this.#options
    let value: T
    try {
      value = await readChecked(file, parse)
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error)
      if (problem === this.#problem) return
      this.#problem = problem
      log.error(`What was read last of ${file} stays in force`, { file, error })
      return
    }
    if (this.#problem !== undefined) log.info(`${file} can be used again`, { file })
    this.#problem = undefined
    const before = this.#value
    this.#value = value
    onChange(value, before)
  }
}
