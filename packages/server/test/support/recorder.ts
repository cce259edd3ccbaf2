import { inspect } from 'node:util'
import { type LogFields, reasons, type ServerLog } from '../../src/log.ts'

/** A list that can be waited on. */
export class Recorder<T> {
  readonly items: T[] = []
  #wake: (() => void)[] = []

  readonly add = (item: T): void => {
    this.items.push(item)
    const wake = this.#wake
    this.#wake = []
    for (const resolve of wake) resolve()
  }

  /** Waits until an item passes, which may be there already, and gives it. */
  async until(passes: (item: T) => boolean): Promise<T> {
    for (;;) {
      const found = this.items.find(passes)
      if (found !== undefined) return found
      await new Promise<void>((resolve) => this.#wake.push(resolve))
    }
  }

  /** Waits until there are `count` items. */
  async count(count: number): Promise<T[]> {
    while (this.items.length < count) await new Promise<void>((resolve) => this.#wake.push(resolve))
    return this.items
  }
}

/** A log that keeps its lines: level, message, causes and all fields. */
export class RecordedLog implements ServerLog {
  readonly lines: Recorder<string> = new Recorder()

  info(message: string, fields?: LogFields): void {
    this.#write('info', message, fields)
  }

  warn(message: string, fields?: LogFields): void {
    this.#write('warn', message, fields)
  }

  error(message: string, fields?: LogFields): void {
    this.#write('error', message, fields)
  }

  get text(): string {
    return this.lines.items.join('\n')
  }

  line(pattern: RegExp): Promise<string> {
    return this.lines.until((line) => pattern.test(line))
  }

  #write(level: string, message: string, fields: LogFields = {}): void {
    const reason = fields.error === undefined ? '' : `: ${reasons(fields.error)}`
    this.lines.add(`${level} ${message}${reason} ${inspect(fields, { depth: 10, showHidden: true })}`)
  }
}

/** All that an error could show to anybody: messages, stacks, causes and own fields. */
export function everythingIn(error: unknown): string {
  return inspect(error, { depth: 20, showHidden: true })
}
