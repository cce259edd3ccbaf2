import { entryBytes } from '../../src/shared/layout.ts'
import type { Memory } from '../../src/shared/memory.ts'

/** One thread of a scenario: production code that does all it does to shared memory through `memory`. */
export type Body<Result> = (memory: Memory) => Result

export interface Scenario<Result> {
  /** The memory before the first step. */
  readonly image: Int32Array
  readonly threads: readonly Body<Result>[]
  /** Throws if the threads cannot have come to these results. */
  check(results: readonly Result[]): void
}

export interface ExploreOptions {
  /** How many times a thread that could go on is stopped for another. */
  bound: number
  /**
   * What processors do beside interleaving, as ARM64 does: plain reads happen as late as the next read-modify-write
   * allows, and an atomic store is seen as late as the next atomic access of its thread allows.
   */
  weak?: boolean
  /** Stops after so many interleavings. Default: all of them. */
  most?: number
}

export interface Explored {
  readonly interleavings: number
  /** What went wrong first, and the steps that led there. */
  readonly fault?: { readonly error: unknown; readonly steps: readonly string[] }
}

/** More steps than this, in a scenario of two hundred, are a thread that loops. */
const maxSteps = 5000
/** Bytes that are copied in one step. */
const pieceBytes = 64

/** Leaves a thread between two accesses. Production code catches nothing. */
const suspended = Symbol('suspended')

/**
 * Runs a scenario in every order of its memory accesses that has at most `bound` preemptions, until one is at fault.
 *
 * A thread is left by an exception and entered again by running it from its start with the results that it had: it is
 * synchronous production code, and what it does depends on nothing else.
 */
export function explore<Result>(scenario: Scenario<Result>, options: ExploreOptions): Explored {
  const choices = new Choices()
  const most = options.most ?? Number.POSITIVE_INFINITY
  for (let interleavings = 1; ; interleavings++) {
    const error = new Run(scenario, options, choices).go()
    if (error !== undefined) {
      choices.repeat()
      const steps: string[] = []
      new Run(scenario, options, choices, steps).go()
      return { interleavings, fault: { error, steps } }
    }
    if (interleavings === most || !choices.next()) return { interleavings }
  }
}

/** The decisions of one interleaving; `next` turns them into those of another, depth first. */
class Choices {
  readonly #chosen: number[] = []
  readonly #counts: number[] = []
  #at = 0

  of(count: number): number {
    const at = this.#at++
    if (at === this.#chosen.length) {
      this.#chosen.push(0)
      this.#counts.push(count)
    }
    return this.#chosen[at] as number
  }

  repeat(): void {
    this.#at = 0
  }

  next(): boolean {
    this.#at = 0
    while (this.#chosen.length > 0) {
      const last = this.#chosen.length - 1
      const choice = (this.#chosen[last] as number) + 1
      if (choice < (this.#counts[last] as number)) {
        this.#chosen[last] = choice
        return true
      }
      this.#chosen.pop()
      this.#counts.pop()
    }
    return false
  }
}

/** One interleaving. */
class Run<Result> {
  readonly words: Int32Array
  readonly bytes: Uint8Array
  readonly weak: boolean
  readonly #scenario: Scenario<Result>
  readonly #threads: Thread<Result>[]
  readonly #choices: Choices
  readonly #steps: string[] | undefined
  #preemptions: number
  #count = 0
  #current: Thread<Result> | undefined
  /** The thread that was chosen has not taken a step yet. */
  #isFresh = true
  #others: Thread<Result>[] = []

  constructor(scenario: Scenario<Result>, options: ExploreOptions, choices: Choices, steps?: string[]) {
    this.#scenario = scenario
    this.words = scenario.image.slice()
    this.bytes = new Uint8Array(this.words.buffer)
    this.weak = options.weak === true
    this.#preemptions = options.bound
    this.#choices = choices
    this.#steps = steps
    this.#threads = scenario.threads.map((body, id) => new Thread(this, id, body))
  }

  /** What is wrong with this interleaving, if anything is. */
  go(): unknown {
    try {
      for (;;) {
        const next = this.#current ?? this.#choose()
        if (!next) break
        this.#current = next
        this.#isFresh = true
        this.#others = this.#threads.filter((thread) => thread !== next && thread.isEnabled)
        next.run()
        if (!next.isEnabled && this.#current === next) this.#current = undefined
      }
      const sleeper = this.#threads.find((thread) => !thread.isDone)
      if (sleeper) throw new Error(`Thread ${sleeper.id} sleeps for ever.`)
      this.#scenario.check(this.#threads.map(({ result }) => result as Result))
      return undefined
    } catch (error) {
      return error
    }
  }

  /** Called before each step of the current thread: leaves it if the next choice is another one. */
  step(what: string): void {
    if (++this.#count > maxSteps) throw new Error('A thread loops.')
    if (!this.#isFresh && this.#preemptions > 0 && this.#others.length > 0) {
      const choice = this.#choices.of(1 + this.#others.length)
      if (choice > 0) {
        this.#preemptions--
        this.#current = this.#others[choice - 1]
        throw suspended
      }
    }
    this.#isFresh = false
    this.#steps?.push(`${this.#current?.id} ${what}`)
  }

  wake(word: number): void {
    for (const thread of this.#threads) thread.wake(word)
    this.#others = this.#threads.filter((thread) => thread !== this.#current && thread.isEnabled)
  }

  #choose(): Thread<Result> | undefined {
    const enabled = this.#threads.filter(({ isEnabled }) => isEnabled)
    return enabled.length > 1 ? enabled[this.#choices.of(enabled.length)] : enabled[0]
  }
}

class Thread<Result> implements Memory {
  readonly id: number
  isDone = false
  result: Result | undefined
  readonly #run: Run<Result>
  readonly #body: Body<Result>
  /** What the steps so far gave, and the one that comes next. */
  readonly #log: unknown[] = []
  #at = 0
  #sleepsOn: number | undefined
  /** In weak mode: plain reads that are still to happen, and the store that is not seen yet. */
  #late: { readonly offset: number; readonly bytes: Uint8Array }[] = []
  #held: { readonly word: number; readonly value: number } | undefined

  constructor(run: Run<Result>, id: number, body: Body<Result>) {
    this.#run = run
    this.id = id
    this.#body = body
  }

  get isEnabled(): boolean {
    return !this.isDone && this.#sleepsOn === undefined
  }

  run(): void {
    this.#at = 0
    this.#late = []
    this.#held = undefined
    try {
      this.result = this.#body(this)
      this.#settle()
      this.isDone = true
    } catch (error) {
      if (error !== suspended) throw error
    }
  }

  wake(word: number): void {
    if (this.#sleepsOn !== word) return
    this.#sleepsOn = undefined
    this.#log.push('ok')
  }

  load(word: number): number {
    this.#show()
    const value = this.#step('load', word, () => this.#run.words[word] as number)
    this.#read()
    return value
  }

  store(word: number, value: number): void {
    this.#settle()
    if (this.#run.weak) this.#held = { word, value }
    else this.#storeNow(word, value)
  }

  add(word: number, value: number): number {
    this.#settle()
    return this.#step('add', word, () => {
      const { words } = this.#run
      const before = words[word] as number
      words[word] = before + value
      return before
    })
  }

  notify(word: number): void {
    this.#settle()
    this.#step('notify', word, () => this.#run.wake(word))
  }

  wait(word: number, value: number): 'ok' | 'not-equal' {
    this.#settle()
    return this.#step('wait', word, () => {
      if (this.#run.words[word] !== value) return 'not-equal'
      this.#sleepsOn = word
      throw suspended
    })
  }

  waitAsync(): Promise<unknown> {
    throw new Error('A scenario has no event loop.')
  }

  get(word: number): number {
    return this.#step('get', word, () => this.#run.words[word] as number)
  }

  set(word: number, value: number): void {
    this.#step('set', word, () => {
      this.#run.words[word] = value
    })
  }

  put(word: number, ...values: number[]): void {
    this.#step('put', word, () => this.#run.words.set(values, word))
  }

  copyIn(offset: number, bytes: Uint8Array): void {
    this.#step('copyIn', offset >>> 2, () => this.#run.bytes.set(bytes, offset))
  }

  copyOut(offset: number, bytes: Uint8Array): void {
    // An entry of the table is looked at at once.
    if (this.#run.weak && bytes.length > entryBytes) this.#late.push({ offset, bytes })
    else this.#copyNow(offset, bytes)
  }

  #copyNow(offset: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      const end = Math.min(at + pieceBytes, bytes.length)
      const piece = this.#step('copyOut', (offset + at) >>> 2, () => this.#run.bytes.slice(offset + at, offset + end))
      bytes.set(piece, at)
    }
  }

  #storeNow(word: number, value: number): void {
    this.#step('store', word, () => {
      this.#run.words[word] = value
    })
  }

  #read(): void {
    const late = this.#late
    if (late.length === 0) return
    this.#late = []
    for (const { offset, bytes } of late) this.#copyNow(offset, bytes)
  }

  #show(): void {
    const held = this.#held
    if (!held) return
    this.#held = undefined
    this.#storeNow(held.word, held.value)
  }

  #settle(): void {
    this.#read()
    this.#show()
  }

  #step<Value>(what: string, word: number, perform: () => Value): Value {
    if (this.#at < this.#log.length) return this.#log[this.#at++] as Value
    this.#run.step(`${what} ${word}`)
    const value = perform()
    this.#log.push(value)
    this.#at++
    return value
  }
}
