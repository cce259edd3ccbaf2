import { type FSWatcher, watch } from 'node:fs'
import { stat } from 'node:fs/promises'
import path from 'node:path'

/** Milliseconds between looks at a file whose changes nobody tells, as on network file systems. */
const defaultInterval = 1000

/**
 * Calls `look` whenever a file may have changed: written, replaced, deleted or made.
 *
 * Watches the directory, since what replaces a file is another file, and looks at the file itself besides: not every file
 * system tells, and behind a symbolic link (as Kubernetes mounts secrets) another directory changes.
 * One call at a time, and one more if something changed meanwhile. It does not keep the process alive.
 */
export class FileWatch {
  readonly #file: string
  readonly #look: () => Promise<void>
  readonly #watcher: FSWatcher | undefined
  readonly #timer: NodeJS.Timeout
  #seen = ''
  #polling = false
  #looking: Promise<void> | undefined
  #again = false
  #closed = false

  /** `look` must not reject. */
  constructor(file: string, look: () => Promise<void>, interval: number = defaultInterval) {
    this.#file = file
    this.#look = look
    this.#watcher = this.#watchFolder()
    this.#timer = setInterval(() => this.#poll(), interval).unref()
  }

  /** Resolves when no call is under way any more. */
  async close(): Promise<void> {
    this.#closed = true
    clearInterval(this.#timer)
    this.#watcher?.close()
    await this.#looking
  }

  #watchFolder(): FSWatcher | undefined {
    const name = path.basename(this.#file)
    try {
      const watcher = watch(path.dirname(this.#file), { persistent: false }, (_event, changed) => {
        if (changed === null || changed === name) this.#changed()
      })
      watcher.on('error', () => watcher.close())
      return watcher
    } catch {
      // No directory, or no watches left: what remains is to look.
      return undefined
    }
  }

  async #poll(): Promise<void> {
    if (this.#polling) return
    this.#polling = true
    const found = await signature(this.#file)
    this.#polling = false
    if (found === this.#seen) return
    this.#seen = found
    this.#changed()
  }

  #changed(): void {
    if (this.#closed) return
    if (this.#looking) {
      this.#again = true
      return
    }
    this.#looking = this.#look().finally(() => {
      this.#looking = undefined
      if (!this.#again) return
      this.#again = false
      this.#changed()
    })
  }
}

async function signature(file: string): Promise<string> {
  try {
    const { ino, size, mtimeNs, ctimeNs } = await stat(file, { bigint: true })
    return [ino, size, mtimeNs, ctimeNs].join()
  } catch (error) {
    return String((error as NodeJS.ErrnoException).code)
  }
}
