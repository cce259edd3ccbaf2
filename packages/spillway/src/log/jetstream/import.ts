import { encodeBatch } from '../../core/batch-text.ts'
import { systemClock } from '../../core/clock.ts'
import { SpillwayError } from '../../core/errors.ts'
import { type HistoryBatch, latestTime } from '../../core/log.ts'
import { nextIndex } from '../../core/memory-log.ts'
import type { FilePart, FileRange } from '../sqlite.ts'
import type { Engine } from './engine.ts'
import { asError, engineFailure } from './failure.ts'
import { finishStream, identify, makeUnfinished, removeStream, type StreamWish } from './open.ts'
import type { RecordKind } from './record.ts'
import { type Draft, headerRoom, mostBytes, mostInFlight } from './sender.ts'

type Parts = AsyncIterable<FilePart> | Iterable<FilePart>

/** Numbers without a batch, of which each takes a message. */
const mostMissing = 1_000_000
/** How far clocks may differ, in milliseconds. A log goes on from its newest time, so one far ahead would age all else. */
const mostAhead = 86_400_000
/** How long an engine may store nothing, in milliseconds. */
const patience = 30_000
const pauseMs = 100

/** See `importJetstream`. */
export async function importParts(engine: Engine, wish: StreamWish, parts: Parts): Promise<number> {
  let filler: Filler | undefined
  try {
    for await (const part of parts) {
      const start = filler ? undefined : firstIndexOf(part)
      if (start !== undefined) filler = await Filler.begin(engine, wish, start)
      if ('batches' in part) await filler?.add(part.batches)
      else await filler?.miss('lost' in part ? part.lost : part.removed)
    }
    filler ??= await Filler.begin(engine, wish, 1)
    return await filler.finish()
  } catch (error) {
    if (filler) await discard(engine, error)
    throw error
  }
}

/** The first number that a history has a record of. What it let go of before is not there to be missed. */
function firstIndexOf(part: FilePart): number | undefined {
  if ('removed' in part) return undefined
  return 'lost' in part ? part.lost.after + 1 : part.batches[0]?.index
}

async function discard(engine: Engine, error: unknown): Promise<void> {
  try {
    await removeStream(engine)
  } catch (cause) {
    const left = `The unfinished stream ${engine.stream} could not be removed either: remove it.`
    throw engineFailure(`${asError(error).message} ${left}`, cause)
  }
}

/**
 * Fills a stream that nobody else writes to. The sequence of each message is known before, and it is stored only behind the
 * one before it: so it is harmless to send one again, and the end of the stream says what has been stored.
 */
class Filler {
  readonly #engine: Engine
  readonly #wish: StreamWish
  readonly #name: string
  /** The sequence of the message that is drafted next. */
  #next: number
  /** The newest batch. */
  #last: number
  /** Numbers up to the next batch are missing, for nobody knows how far. */
  #isLost = false
  #time = 0
  #missing = 0
  #bytes = 0
  #count = 0
  #drafts: Draft[] = []
  #size = 0

  private constructor(engine: Engine, wish: StreamWish, name: string, start: number) {
    this.#engine = engine
    this.#wish = wish
    this.#name = name
    this.#next = start
    this.#last = start - 1
  }

  static async begin(engine: Engine, wish: StreamWish, start: number): Promise<Filler> {
    const { base, token } = await makeUnfinished(engine, { ...wish, firstSeq: start })
    engine.base = base
    return new Filler(engine, wish, token, start)
  }

  async add(batches: readonly HistoryBatch[]): Promise<void> {
    for (const { index, time, events } of batches) {
      checkTime(index, time)
      nextIndex(this.#next - 1, index)
      await this.#pass(index, this.#isLost ? 'lost' : 'skipped')
      this.#isLost = false
      const data = encoder.encode(encodeBatch(events))
      this.#checkSize(index, data.length)
      this.#time = Math.max(this.#time, Math.floor(time))
      await this.#put('batch', data)
      this.#last = index
      this.#count++
    }
  }

  /** What was stored there is missing, and readers are told so. */
  async miss({ before }: FileRange): Promise<void> {
    if (before === undefined) this.#isLost = true
    else await this.#pass(before, 'lost')
  }

  /** Makes it the log that it is to be, and gives the number of its batches. */
  async finish(): Promise<number> {
    await this.#flush()
    await finishStream(this.#engine, this.#wish, this.#bytes)
    return this.#count
  }

  /** Uses up the numbers before `index`. */
  async #pass(index: number, kind: RecordKind): Promise<void> {
    this.#missing += Math.max(0, index - this.#next)
    if (this.#missing > mostMissing) {
      const each = `each takes a message in a stream, and ${mostMissing} are the most`
      throw new SpillwayError(
        'INVALID',
        `Up to index ${index} this history has ${this.#missing} numbers without a batch: ${each}. Nothing was imported.`,
      )
    }
    while (this.#next < index) await this.#put(kind, none)
  }

  async #put(kind: RecordKind, data: Uint8Array): Promise<void> {
    const name = `${this.#name}.${this.#next}`
    const head = { time: this.#time, append: name, position: 1, count: 1, previous: this.#last, left: 0 }
    this.#drafts.push({ kind, head, data, id: name })
    this.#next++
    this.#size += data.length
    this.#bytes += data.length + headerRoom
    if (this.#drafts.length >= mostInFlight || this.#size >= mostBytes) await this.#flush()
  }

  /** Stores what was drafted, whatever of it must be sent again. */
  async #flush(): Promise<void> {
    const first = this.#next - this.#drafts.length
    let stored = 0
    let movedAt = performance.now()
    while (stored < this.#drafts.length) {
      const rest = this.#drafts.slice(stored)
      const outcomes = await Promise.all(
        rest.map((draft, n) => this.#engine.sender.send(draft, { after: first + stored + n - 1 })),
      )
      for (const outcome of outcomes) {
        if (outcome.kind === 'refused')
          throw engineFailure('The engine stores no more. Nothing was imported.', outcome.error)
      }
      if (outcomes.every(({ kind }) => kind === 'stored')) break
      const upTo = await this.#storedUpTo()
      if (upTo !== undefined && upTo >= first + stored) {
        stored = upTo - first + 1
        movedAt = performance.now()
        continue
      }
      if (performance.now() - movedAt > patience) {
        const unknown = outcomes.find(({ kind }) => kind === 'unknown')
        throw engineFailure('The engine stores nothing more. Nothing was imported.', unknown && errorOf(unknown))
      }
      await new Promise((resolve) => setTimeout(resolve, pauseMs))
    }
    this.#drafts = []
    this.#size = 0
  }

  /** `undefined`: nobody answers. Throws if the stream is another one. */
  async #storedUpTo(): Promise<number | undefined> {
    const info = await this.#engine.info().catch(() => undefined)
    if (!info) return undefined
    if (info.config.subjects?.[0] === `${this.#engine.base}.*` && !identify(this.#engine.stream, info)) {
      return info.state.last_seq
    }
    throw new SpillwayError('LOG_UNUSABLE', `The stream ${this.#engine.stream} was made anew meanwhile.`)
  }

  #checkSize(index: number, length: number): void {
    const most = this.#engine.connection.info?.max_payload ?? Number.POSITIVE_INFINITY
    if (length + headerRoom <= most) return
    throw new SpillwayError(
      'TOO_LARGE',
      `Index ${index} takes a message of ${length + headerRoom} bytes, the engine's max_payload is ${most}. Nothing was imported.`,
    )
  }
}

const encoder = new TextEncoder()
const none = new Uint8Array()

function errorOf(outcome: object): unknown {
  return 'error' in outcome ? outcome.error : undefined
}

function checkTime(index: number, time: number): void {
  if (time <= Math.min(systemClock.now() + mostAhead, latestTime)) return
  const message = `Index ${index} has a time in the future, ${time} Unix milliseconds. Correct it, or the clock.`
  throw new SpillwayError('INVALID', message)
}
