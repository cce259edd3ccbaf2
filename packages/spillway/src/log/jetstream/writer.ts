import { encodeBatch } from '../../core/batch-text.ts'
import { digestOf } from '../../core/digest.ts'
import { SpillwayError } from '../../core/errors.ts'
import type { PendingBatch } from '../../core/event.ts'
import type { Appended, AppendOptions } from '../../core/log.ts'
import { checkExpected, keyReused } from '../../core/memory-log.ts'
import type { Engine } from './engine.ts'
import { asError, engineFailure } from './failure.ts'
import type { Keys } from './keys.ts'
import { indexesOf, layOut } from './layout.ts'
import type { RecordKind, StreamRecord } from './record.ts'
import { type Draft, headerRoom, mostBytes, mostInFlight, type Outcome } from './sender.ts'
import type { Tail } from './tail.ts'
import { Turns } from './turns.ts'

/** What a writer knows of its log. */
export interface WriterHost {
  readonly engine: Engine
  readonly tail: Tail
  readonly keys: Keys
  /** The newest index that followers were told of. */
  readonly last: number
  /** The log's time, in Unix milliseconds. */
  now(): number
  /** Told that the engine has given a sequence that was read before: it lost what had it. */
  givenAgain(seq: number): void
}

interface Job {
  readonly name: string
  readonly kind: RecordKind
  readonly batches: readonly PendingBatch[]
  readonly bodies: readonly Uint8Array[]
  readonly size: number
  readonly key: string | undefined
  readonly digest: number | undefined
  readonly expected: number | undefined
  /** It depends on the newest index, so nothing of this writer may be under way beside it. */
  readonly isConditional: boolean
  /** When it is given up, in milliseconds of the monotonic clock. */
  readonly deadline: number
  /** Its messages have other names in each attempt, so that no two of them make one append. */
  attempts: number
  isSettled: boolean
  /** The sequence of its first record, once it was read whole. */
  first: number | undefined
  resolve(appended: Appended): void
  reject(error: unknown): void
}

/** Where an append is to stand: behind the newest index `last` and the sequence `seq`. */
interface Place {
  readonly job: Job
  readonly kinds: readonly RecordKind[]
  readonly last: number
  readonly seq: number
}

/** The messages of one attempt to store an append. */
interface Plan {
  readonly job: Job
  readonly drafts: readonly Draft[]
}

/** Bytes that may wait to be stored. */
const mostWaiting = 64 * 2 ** 20
/** Losses to other writers in a row after which a writer claims its turn, and those after which it pauses, too. */
const patientLosses = 2
const manyLosses = 20
const pauseMs = 50
/** How long nothing may come on the way to the end of the stream, in milliseconds. */
const silenceMs = 4000

/**
 * Appends to a stream that others append to, too.
 *
 * Order    What waits is sent at once, each message on the condition that the one before it is the newest of the stream. So
 *          what is stored is a beginning of what was sent, whatever breaks, and the rest is sent again behind it.
 * Truth    A message counts once it was read: an answer that was lost, or a leader that changed, changes nothing of that.
 *          What was not read when the stream was read to its end is sent again, behind that end. Should the first one come
 *          late, its condition no longer holds; or it takes that place, and the second one's does not.
 * Keys     Nothing is stored behind what was not read, so an append under a key that another server used is seen in time.
 *          The engine's own ids do not serve for that: in a cluster it also remembers those of messages that it refused.
 * Turns    Writers that are at it at once go round, see {@link Turns}. Who lost twice all the same stores a message without
 *          a condition, which takes the next place wherever that is, and goes on behind it. Those whose messages it broke
 *          into have to read it first.
 */
export class Writer {
  readonly id: string
  readonly #host: WriterHost
  readonly #patience: number
  /** Why what waits could not be stored yet. */
  problem: Error | undefined
  /** Why nothing more can be stored. */
  #end: SpillwayError | undefined
  #queue: Job[] = []
  #waiting = 0
  #count = 0
  #flushing: Promise<void> | undefined
  #isClosed = false
  /** When everything is given up, in milliseconds of the monotonic clock. */
  #latest = Number.POSITIVE_INFINITY
  readonly #turns: Turns
  readonly #sent = new Map<string, Job>()
  /** Appends under a key that are under way here. */
  readonly #keyed = new Map<string, Promise<unknown>>()

  constructor(id: string, host: WriterHost, patience: number) {
    this.id = id
    this.#host = host
    this.#turns = new Turns(id)
    this.#patience = patience
  }

  async append(batches: readonly PendingBatch[], { key, expected }: AppendOptions): Promise<Appended> {
    this.#checkOpen()
    if (batches.length === 0) return { indexes: [], duplicate: false }
    if (key === undefined) return this.#add('batch', batches, bodiesOf(batches), { expected })
    // Under way here: what becomes of it decides.
    for (let same = this.#keyed.get(key); same; same = this.#keyed.get(key)) await same
    this.#checkOpen()
    const appended = this.#add('batch', batches, bodiesOf(batches), { key, digest: digestOf(batches), expected })
    this.#keyed.set(
      key,
      appended.then(ignore, ignore).then(() => this.#keyed.delete(key)),
    )
    return appended
  }

  /** Stores a record that is no batch, in order with what was appended. Waits `patience` milliseconds, by default the writer's. */
  async note(kind: RecordKind, body: Uint8Array, patience: number = this.#patience): Promise<void> {
    this.#checkOpen()
    await this.#add(kind, [], [body], { patience })
  }

  /** Told of every record that was read, whoever made it. */
  hear(record: StreamRecord): void {
    this.#turns.note(record)
  }

  /** Told of the first record of every append that was read, once it was read whole. */
  read({ seq, head }: StreamRecord): void {
    const job = this.#sent.get(head.append)
    if (job) job.first = seq
  }

  /** Nothing more can be stored: everything that waits is told so. */
  fail(error: SpillwayError): void {
    this.#end ??= error
  }

  /** Takes nothing more, and finishes what it took, or gives it up some seconds after its patience at the latest. */
  async close(): Promise<void> {
    this.#isClosed = true
    this.#latest = performance.now() + this.#patience
    await this.#flushing
  }

  /**
   * Reads to the end that the stream has now. Rejects when nothing comes for a while: a node that is cut from the others
   * counts what it will never have.
   */
  async catchUp(): Promise<void> {
    const { engine, tail } = this.#host
    const info = await engine.info()
    if (!info) throw new Error(`there is no stream ${engine.stream}`)
    for (let before = -1; tail.seq > before; ) {
      before = tail.seq
      if (await isWithin(tail.reached(info.state.last_seq), silenceMs)) return
    }
    throw new Error(`the stream was not read to its end: nothing came for ${silenceMs} ms`)
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new SpillwayError('CLOSED', 'The log was closed. The events were not stored.')
    if (this.#end) throw this.#end
  }

  #add(
    kind: RecordKind,
    batches: readonly PendingBatch[],
    bodies: readonly Uint8Array[],
    { key, digest, expected, patience = this.#patience }: AppendOptions & { digest?: number; patience?: number },
  ): Promise<Appended> {
    const size = bodies.reduce((sum, { length }) => sum + length, 0)
    this.#checkSizes(bodies)
    if (this.#waiting > 0 && this.#waiting + size > mostWaiting) {
      throw new SpillwayError('OVERLOADED', `${this.#waiting} bytes wait to be stored already. Nothing was stored.`)
    }
    this.#waiting += size
    return new Promise((resolve, reject) => {
      this.#queue.push({
        name: `${this.id}.${++this.#count}`,
        kind,
        batches,
        bodies,
        size,
        key,
        digest,
        expected,
        isConditional: expected !== undefined || batches.some(({ index }) => index !== undefined),
        deadline: performance.now() + patience,
        attempts: 0,
        isSettled: false,
        first: undefined,
        resolve,
        reject,
      })
      this.#flushing ??= this.#flush()
    })
  }

  #checkSizes(bodies: readonly Uint8Array[]): void {
    const most = this.#host.engine.connection.info?.max_payload ?? Number.POSITIVE_INFINITY
    for (const { length } of bodies) {
      if (length + headerRoom <= most) continue
      throw new SpillwayError(
        'TOO_LARGE',
        `A batch takes a message of ${length + headerRoom} bytes, the engine's max_payload is ${most}. Nothing was stored.`,
      )
    }
  }

  async #flush(): Promise<void> {
    // What else this turn publishes shares the first window.
    await Promise.resolve()
    while (this.#queue.length > 0) {
      await this.#store(this.#takeWindow())
    }
    this.#flushing = undefined
    this.problem = undefined
  }

  #takeWindow(): Job[] {
    let messages = 0
    let size = 0
    let length = 0
    for (const job of this.#queue) {
      messages += job.bodies.length
      size += job.size
      const isFull = messages > mostInFlight || size > mostBytes || job.isConditional
      if (length > 0 && isFull) break
      length++
      if (isFull) break
    }
    return this.#queue.splice(0, length)
  }

  /** Sends again what was not stored, until all of it is settled. */
  async #store(window: readonly Job[]): Promise<void> {
    const { engine } = this.#host
    let rest = window
    let losses = 0
    let pauses = 0
    while (rest.length > 0) {
      if (this.#end) return this.#giveUp(rest, this.#end)
      const { problem, isConflict } = await this.#attempt(rest, losses >= patientLosses)
      // A leader that was cut from the others has what was not confirmed in others' way: that is no sign that it is well.
      if (problem || !isConflict) this.problem = problem
      rest = rest.filter((job) => !job.isSettled)
      losses = isConflict ? losses + 1 : 0
      if (!problem && losses < manyLosses) continue
      // Once the connection was closed for good nothing can come any more of what waits.
      const now = engine.connection.isClosed() ? Number.POSITIVE_INFINITY : performance.now()
      const late = [...rest, ...this.#queue].filter(({ deadline }) => Math.min(deadline, this.#latest) <= now)
      this.#giveUp(late, problem ?? new Error('others appended first, again and again'))
      this.#queue = this.#queue.filter((job) => !job.isSettled)
      rest = rest.filter((job) => !job.isSettled)
      if (rest.length > 0) await pause(pauseMs * Math.min(++pauses, 20))
    }
  }

  /** Sends `jobs`, and settles all of which it is then known what became of them. */
  async #attempt(jobs: readonly Job[], claimsTurn: boolean): Promise<{ problem?: Error; isConflict: boolean }> {
    try {
      await (claimsTurn ? this.#claimTurn(jobs.length) : this.#turns.come())
      const { after, plans } = await this.#planAll(jobs)
      const outcomes = await this.#send(plans, after)
      const all = outcomes.flat()
      const problem = failureIn(all, 'unknown')
      const isConflict = all.some(({ kind }) => kind === 'conflict')
      for (const [n, plan] of plans.entries()) this.#settle(plan, outcomes[n] as Outcome[])
      // Whoever looks is told before it is known what became of it.
      if (problem) this.problem = problem
      if (problem || isConflict) await this.catchUp()
      else if (newestOf(all) > this.#host.tail.seq) await within(this.#host.tail.reached(newestOf(all)), this.#patience)
      for (const [n, plan] of plans.entries()) this.#settle(plan, outcomes[n] as Outcome[])
      return problem ? { problem, isConflict } : { isConflict }
    } catch (cause) {
      return { problem: asError(cause), isConflict: false }
    }
  }

  /** Takes the next place in the stream, whatever it is, and reads up to it. */
  async #claimTurn(left: number): Promise<void> {
    const { engine, tail } = this.#host
    const { seq: read } = tail
    const append = `${this.id}.${++this.#count}`
    const head = { time: this.#host.now(), append, position: 1, count: 1, previous: undefined, left }
    const outcome = await engine.sender.send({ kind: 'skipped', head, data: none, id: append })
    if (outcome.kind === 'unknown') throw outcome.error
    if (outcome.kind !== 'stored') return
    if (outcome.seq <= read) {
      this.#host.givenAgain(outcome.seq)
      throw new Error(`the stream gives the number ${outcome.seq} a second time`)
    }
    await within(tail.reached(outcome.seq), this.#patience)
  }

  /**
   * The messages of appends, one behind the other, and all behind sequence `after`, up to which it was read. What is stored
   * already, or cannot be, is settled.
   */
  async #planAll(jobs: readonly Job[]): Promise<{ after: number; plans: Plan[] }> {
    const places: Place[] = []
    let { seq } = this.#host.tail
    let { last } = this.#host
    // Up to where keys and indexes were looked at. Once this is awaited the tail may have read more.
    let after = seq
    for (const job of jobs) {
      if (this.#isStored(job)) continue
      let kinds = kindsOf(job, last, seq)
      if (kinds instanceof SpillwayError) {
        // Others may have appended what was not read yet. A job that can be refused is alone.
        await this.catchUp()
        if (this.#isStored(job)) continue
        ;({ seq } = this.#host.tail)
        ;({ last } = this.#host)
        after = seq
        kinds = kindsOf(job, last, seq)
      }
      if (kinds instanceof SpillwayError) {
        this.#reject(job, kinds)
        continue
      }
      places.push({ job, kinds, last, seq })
      seq += kinds.length
      if (job.kind === 'batch') last = seq
    }
    let left = places.reduce((sum, { kinds }) => sum + kinds.length, 0)
    const plans = places.map((place) => {
      left -= place.kinds.length
      return this.#plan(place, left)
    })
    return { after, plans }
  }

  /** Settles an append that an earlier attempt has stored, as was read since, or whose key was used before. */
  #isStored(job: Job): boolean {
    if (this.#isRead(job)) return true
    const first = job.key === undefined ? undefined : this.#host.keys.get(job.key)
    if (!first) return false
    if (first.digest !== String(job.digest)) this.#reject(job, keyReused(job.key as string))
    else this.#resolve(job, { indexes: indexesOf(job.batches, first.start), duplicate: true })
    return true
  }

  /** Settles an append that was read. */
  #isRead(job: Job): boolean {
    if (job.first === undefined) return false
    this.#resolve(job, { indexes: indexesOf(job.batches, job.first), duplicate: false })
    return true
  }

  /** `behind`: how many messages follow those of this append. */
  #plan({ job, kinds, last, seq }: Place, behind: number): Plan {
    const append = `${job.name}.${job.attempts++}`
    const time = this.#host.now()
    let previous = last
    let body = 0
    const drafts = kinds.map((kind, n): Draft => {
      const left = kinds.length - n - 1 + behind
      const head = { time, append, position: n + 1, count: kinds.length, previous, left }
      const data = kind === 'skipped' ? none : (job.bodies[body++] as Uint8Array)
      if (kind === 'batch') previous = seq + n + 1
      const isLast = n === kinds.length - 1
      const key = isLast && job.key !== undefined ? { name: job.key, digest: String(job.digest) } : undefined
      return { kind, head, data, id: `${append}.${n + 1}`, key }
    })
    this.#sent.set(append, job)
    return { job, drafts }
  }

  /** Sends plans that stand behind `after`. Gives the outcomes of each one's messages; behind one that was not stored there may be none. */
  async #send(plans: readonly Plan[], after: number): Promise<Outcome[][]> {
    const { engine, tail } = this.#host
    const drafts = plans.flatMap((plan) => plan.drafts)
    const outcomes: Outcome[] = []
    const begun = performance.now()
    tail.hold()
    try {
      while (outcomes.length < drafts.length) {
        const from = outcomes.length
        const chunk = drafts.slice(from, from + engine.sender.mostAtOnce)
        const answers = await engine.sender.sendAll(chunk, after + from)
        for (const [n, answer] of answers.entries()) {
          outcomes.push(answer)
          // Told at once, in order: the engine may let go of it before it could be read.
          if (answer.kind === 'stored') tail.take({ seq: answer.seq, ...(chunk[n] as Draft) })
        }
        if (answers.some(({ kind }) => kind !== 'stored')) break
      }
    } finally {
      tail.release()
    }
    this.#turns.took(performance.now() - begun)
    let at = 0
    return plans.map((plan) => {
      const from = at
      at += plan.drafts.length
      return outcomes.slice(from, at)
    })
  }

  /** Settles an append that was read, or of which all messages were confirmed and read, or one was refused. */
  #settle({ job, drafts }: Plan, outcomes: readonly Outcome[]): void {
    if (job.isSettled || this.#isRead(job)) return
    const seqs = outcomes.flatMap((outcome) => (outcome.kind === 'stored' ? outcome.seq : []))
    const isConfirmed = seqs.length === drafts.length && (seqs.at(-1) as number) <= this.#host.tail.seq
    if (isConfirmed) {
      this.#resolve(job, { indexes: indexesOf(job.batches, seqs[0] as number), duplicate: false })
      return
    }
    const refusal = failureIn(outcomes, 'refused')
    if (refusal) this.#reject(job, engineFailure('The engine refused the events.', refusal))
  }

  #resolve(job: Job, appended: Appended): void {
    this.#forget(job)
    job.resolve(appended)
  }

  #reject(job: Job, error: SpillwayError): void {
    this.#forget(job)
    job.reject(error)
  }

  #forget(job: Job): void {
    job.isSettled = true
    this.#waiting -= job.size
    for (let attempt = 0; attempt < job.attempts; attempt++) this.#sent.delete(`${job.name}.${attempt}`)
  }

  #giveUp(jobs: readonly Job[], cause: Error): void {
    for (const job of jobs) {
      if (this.#isRead(job)) continue
      const outcome =
        job.attempts > 0
          ? 'It is not known whether the events were stored: publish them again under the same id.'
          : 'The events were not stored.'
      this.#reject(job, engineFailure(outcome, cause))
    }
  }
}

const none = new Uint8Array()
const encoder = new TextEncoder()

function bodiesOf(batches: readonly PendingBatch[]): Uint8Array[] {
  return batches.map(({ events }) => encoder.encode(encodeBatch(events)))
}

/** The kinds of an append's records, or why it cannot be stored there. */
function kindsOf({ kind, batches, expected }: Job, last: number, seq: number): readonly RecordKind[] | SpillwayError {
  try {
    checkExpected(expected, last)
    return kind === 'batch' ? layOut(batches, last, seq) : [kind]
  } catch (error) {
    return error as SpillwayError
  }
}

function failureIn(outcomes: readonly Outcome[], kind: 'refused' | 'unknown'): Error | undefined {
  for (const outcome of outcomes) if (outcome.kind === kind) return outcome.error
  return undefined
}

function newestOf(outcomes: readonly Outcome[]): number {
  let newest = 0
  for (const outcome of outcomes) if (outcome.kind === 'stored') newest = Math.max(newest, outcome.seq)
  return newest
}

/** Rejects if `promise` takes longer than `ms` milliseconds. */
export async function within(promise: Promise<void>, ms: number): Promise<void> {
  if (await isWithin(promise, ms)) return
  throw new Error(`the stream was not read to its end within ${ms} ms`)
}

/** Whether `promise` resolves before so many milliseconds are over. */
async function isWithin(promise: Promise<void>, ms: number): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), ms)
  })
  try {
    return await Promise.race([promise.then(() => true), late])
  } finally {
    clearTimeout(timer)
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

function ignore(): undefined {}
