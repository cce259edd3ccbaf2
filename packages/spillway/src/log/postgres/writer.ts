import { createHash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { batchEnd, encodeBatch } from '../../core/batch-text.ts'
import { digestOf } from '../../core/digest.ts'
import { SpillwayError } from '../../core/errors.ts'
import { type PendingBatch, StoredBatch } from '../../core/event.ts'
import type { Appended, AppendOptions } from '../../core/log.ts'
import { checkExpected, keyReused, nextIndex } from '../../core/memory-log.ts'
import { failureOf, isCollision, isGone, said, thrown } from './client.ts'
import type { Answer, Conditions, Database, Group } from './database.ts'
import type { Feed } from './feed.ts'

export interface WriterOptions {
  /** Of the log. */
  readonly name: string
  readonly database: Database
  readonly feed: Feed
  readonly epoch: string
  /** What this server calls itself: no two ever have the same. */
  readonly writer: string
  readonly patience: number
  readonly maxBytes: number
}

/** What one statement takes, so that nobody waits long for one. */
const groupLength = 1024
const groupBytes = 4 * 2 ** 20
/** Characters that may wait; beyond, publishers are told to come back. */
const maxWaiting = 64 * 2 ** 20
/** Milliseconds between two tries to reach the database. */
const firstPause = 20
const longestPause = 1000

const notKnown = 'It is not known whether the events were stored: publish them again under the same id.'

interface Append {
  readonly batches: readonly PendingBatch[]
  readonly texts: readonly string[]
  readonly key: string | undefined
  readonly digest: number
  readonly expected: number | undefined
  readonly size: number
  resolve(appended: Appended): void
  reject(error: unknown): void
}

/**
 * Appends that come while one statement runs share the next one, in the order in which they came. A statement whose answer
 * was lost is sent again under its number until there is one, so that it is known what became of it.
 */
export class Writer {
  readonly #options: WriterOptions
  #queue: Append[] = []
  #waiting = 0
  #number = 0
  #flushing: Promise<void> | undefined
  readonly #telling = new Set<Promise<void>>()
  #failure: SpillwayError | undefined

  constructor(options: WriterOptions) {
    this.#options = options
  }

  append(batches: readonly PendingBatch[], { key, expected }: AppendOptions): Promise<Appended> {
    const { maxBytes } = this.#options
    if (this.#failure) throw this.#failure
    let size = 0
    const texts = batches.map(({ bytes, events }) => {
      if (bytes > maxBytes) throw tooLarge(bytes, maxBytes)
      const text = encodeBatch(events)
      size += text.length
      return text
    })
    if (this.#waiting > 0 && this.#waiting + size > maxWaiting) {
      const message = `${this.#waiting} characters wait to be stored already. Nothing was stored.`
      throw new SpillwayError('OVERLOADED', message)
    }
    this.#waiting += size
    const digest = key === undefined ? 0 : digestOf(batches)
    return new Promise((resolve, reject) => {
      this.#queue.push({ batches, texts, key, digest, expected, size, resolve, reject })
      this.#flushing ??= this.#flush()
    })
  }

  /** Nothing more can be stored. */
  fail(failure: SpillwayError): void {
    this.#failure ??= failure
  }

  /** Resolves when all that came was stored and told, or failed. */
  async idle(): Promise<void> {
    await this.#flushing
    await Promise.all(this.#telling)
  }

  async #flush(): Promise<void> {
    // What else this turn publishes shares the first statement.
    await Promise.resolve()
    while (this.#queue.length > 0) {
      const group = this.#takeGroup()
      try {
        this.#settle(
          group,
          await this.#options.feed.whileStoring(this.#store(packGroup(group, this.#options.feed.told))),
        )
      } catch (error) {
        for (const { reject } of group) reject(error)
      }
      for (const { size } of group) this.#waiting -= size
    }
    this.#flushing = undefined
  }

  #takeGroup(): Append[] {
    let length = 0
    let size = 0
    for (const append of this.#queue) {
      size += append.size
      if (length > 0 && (length >= groupLength || size > groupBytes)) break
      length++
    }
    return this.#queue.splice(0, length)
  }

  /** Rejects with `LOG_FAILED`, which says whether it may have been stored. */
  async #store(group: Group): Promise<Answer> {
    const { name, database, feed, writer, patience } = this.#options
    const append = { writer, number: ++this.#number, since: feed.told }
    let mayBeStored = false
    let isOver = false
    let giveUp = () => {}
    const expired = new Promise<undefined>((resolve) => {
      giveUp = () => {
        isOver = true
        resolve(undefined)
      }
    })
    // Whoever awaits the append must not see its process end for want of anything else to do.
    const timer = setTimeout(giveUp, patience)
    try {
      for (let pause = firstPause; ; pause = Math.min(2 * pause, longestPause)) {
        let cause: unknown
        try {
          if (this.#failure) throw this.#failure
          const answer = await Promise.race([database.append(append, feed.told, group), expired])
          if (answer) return answer
          mayBeStored = true
        } catch (error) {
          cause = error
          if (!isCollision(error, name)) {
            if (failureOf(error) === 'refused' || error instanceof SpillwayError)
              throw await this.#refused(error, mayBeStored)
            if (failureOf(error) === 'unknown') mayBeStored = true
            await Promise.race([delay(pause), expired])
          }
        }
        if (isOver) throw this.#gaveUp(mayBeStored, cause)
      }
    } finally {
      clearTimeout(timer)
    }
  }

  async #refused(error: unknown, mayBeStored: boolean): Promise<SpillwayError> {
    if (error instanceof SpillwayError) return error
    const { database, feed } = this.#options
    const { code } = error as { code?: string }
    if (code === thrown.shrunk) await database.renew().catch(() => {})
    if (isGone(error)) feed.end()
    const outcome = mayBeStored ? notKnown : 'Nothing was stored.'
    const message = this.#failure?.message ?? `The database refused to store: ${said(error)}. ${outcome}`
    return new SpillwayError('LOG_FAILED', message, { cause: error })
  }

  /** Those behind it have waited as long, and nobody waits behind a database that is away. */
  #gaveUp(mayBeStored: boolean, cause: unknown): SpillwayError {
    const away = `The database did not answer for ${this.#options.patience} ms${cause ? `: ${said(cause)}` : ''}.`
    const unsent = () => new SpillwayError('LOG_FAILED', `${away} Nothing was stored.`, { cause })
    for (const { reject, size } of this.#queue.splice(0)) {
      this.#waiting -= size
      reject(unsent())
    }
    if (!mayBeStored) return unsent()
    return new SpillwayError('LOG_FAILED', `${away} ${notKnown}`, { cause })
  }

  #settle(group: readonly Append[], { outcomes, base, last, changes, mark, floor }: Answer): void {
    const { epoch, feed } = this.#options
    const stored: StoredBatch[] = []
    const settles: (() => void)[] = []
    const repeated: { readonly last: number; settle(): void }[] = []
    let at = base
    for (const [n, { batches, key, expected, resolve, reject }] of group.entries()) {
      const [code, value] = [outcomes?.codes[n], outcomes?.values[n] ?? at]
      at += batches.length
      try {
        if (code === 'K') throw keyReused(key as string)
        if (code === 'M') checkExpected(expected, value)
        const indexes = indexesOf(batches, value)
        if (code === 'D') {
          const settle = () => resolve({ indexes, duplicate: true })
          repeated.push({ last: indexes.at(-1) ?? 0, settle })
          continue
        }
        for (const [m, batch] of batches.entries()) stored.push(new StoredBatch(epoch, indexes[m] as number, batch))
        settles.push(() => resolve({ indexes, duplicate: false }))
      } catch (error) {
        settles.push(() => reject(error))
      }
    }
    if (stored.length > 0) this.#whenTold(feed.tell({ base, changes, batches: stored, mark }, floor), settles)
    else {
      feed.hint(last, changes)
      for (const settle of settles) settle()
    }
    // Another server may have stored them, and this one not have heard of it yet.
    for (const { last, settle } of repeated) this.#whenTold(feed.reach(last), [settle])
  }

  #whenTold(told: Promise<void>, settles: readonly (() => void)[]): void {
    const telling = told.then(() => {
      this.#telling.delete(telling)
      for (const settle of settles) settle()
    })
    this.#telling.add(telling)
  }
}

/** The indexes of `batches` behind `last`. Throws `INDEX_ORDER`. */
function indexesOf(batches: readonly PendingBatch[], last: number): number[] {
  let at = last
  return batches.map(({ index }) => {
    at = nextIndex(at, index)
    return at
  })
}

/** Beyond it is asked whether an index can still be given. */
const farFromFull = 2 ** 52

function packGroup(group: readonly Append[], newest: number): Group {
  const sizes = group.flatMap(({ batches }) => batches.map(({ bytes }) => bytes))
  const texts = group.flatMap(({ texts }) => texts).join(batchEnd)
  const isPlain = newest < farFromFull && group.every(asksNothing)
  return { sizes, texts, conditions: isPlain ? undefined : conditionsOf(group) }
}

function asksNothing({ batches, key, expected }: Append): boolean {
  return (
    key === undefined &&
    expected === undefined &&
    batches.length > 0 &&
    batches.every(({ index }) => index === undefined)
  )
}

/**
 * An append's batches before the first with a wanted index follow the log's newest; all others have indexes that are known
 * here, and so is whether they are in order.
 */
function conditionsOf(group: readonly Append[]): Conditions {
  const packed = {
    leads: [] as number[],
    firsts: [] as number[],
    ends: [] as number[],
    keys: [] as string[],
    digests: [] as number[],
    expected: [] as number[],
    jobs: [] as number[],
    at: [] as number[],
  }
  for (const [n, { batches, key, digest, expected = -1 }] of group.entries()) {
    const first = batches.findIndex(({ index }) => index !== undefined)
    const lead = first < 0 ? batches.length : first
    const wanted = batches[lead]?.index ?? 0
    let at = wanted
    let isInOrder = true
    for (const [m, { index }] of batches.entries()) {
      if (m > lead) {
        isInOrder &&= (index ?? at + 1) > at && (index ?? at + 1) <= Number.MAX_SAFE_INTEGER
        at = index ?? at + 1
      }
      packed.jobs.push(n + 1)
      packed.at.push(m < lead ? -(m + 1) : at)
    }
    packed.leads.push(lead)
    packed.firsts.push(isInOrder ? wanted : -1)
    packed.ends.push(at)
    // It may hold what a text of the database may not, and be longer than what an index takes.
    packed.keys.push(key === undefined ? '' : createHash('sha256').update(JSON.stringify(key)).digest('hex'))
    packed.digests.push(digest)
    packed.expected.push(expected)
  }
  return packed
}

export function tooLarge(bytes: number, most: number): SpillwayError {
  return new SpillwayError('TOO_LARGE', `The batch has ${bytes} bytes, maxBytes is ${most}. Nothing was stored.`)
}
