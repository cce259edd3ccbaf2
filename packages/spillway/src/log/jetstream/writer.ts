import { encodeBatch } from '../../core/batch-text.ts'
import { digestOf } from '../../core/digest.ts'
import { SpillwayError } from '../../core/errors.ts'
import type { PendingBatch } from '../../core/event.ts'
import { type Appended, type AppendOptions, keyWindow } from '../../core/log.ts'
import { checkExpected, keyReused } from '../../core/memory-log.ts'
import { asError, type Draft, type Engine, engineFailure, headerOf, type Outcome } from './engine.ts'
import { indexesOf, layOut } from './layout.ts'
import { digestHeader, type RecordKind, type StreamRecord } from './record.ts'
import type { Tail } from './tail.ts'

/** What a writer knows of its log. */
export interface WriterHost {
  readonly engine: Engine
  readonly tail: Tail
  /** The newest index that followers were told of. */
  readonly last: number
  /** The log's time, in Unix milliseconds. */
  now(): number
}

interface Job {
  /** Names its messages; together with the attempt, its records. */
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
  /** Its records have other names in each attempt, so that no two of them make one append. */
  attempt: number
  /** How often an append with its key was found to have broken off. */
  brokenOff: number
  wasSent: boolean
  isSettled: boolean
  /** The sequence of its first record, once it was read whole. */
  first: number | undefined
  resolve(appended: Appended): void
  reject(error: unknown): void
}

/** Messages that wait for their answers at once, and their bytes. */
const mostInFlight = 1024
const mostBytes = 4 * 2 ** 20
/** Bytes that may wait to be stored. */
const mostWaiting = 64 * 2 ** 20
/** Bytes of a message beside its body: its subject and headers. */
const headerRoom = 4096
/** Losses to other writers after which a writer takes its place without a condition. */
const patientLosses = 2
const pauseMs = 50
/** The newest sequence of no stream: a message with it as its condition is stored only if it was before. */
const never = Number.MAX_SAFE_INTEGER

/**
 * Appends to a stream that others append to, too.
 *
 * Order    What waits is sent at once, each message on the condition that the one before it is the newest of the stream. So
 *          what is stored is a beginning of what was sent, whatever breaks, and the rest is sent again behind it.
 * Truth    A message counts once it was read: an answer that was lost, or a leader that changed, changes nothing of that.
 *          What was not read when the stream's end was reached was not stored, and what comes late meets a condition that
 *          no longer holds, or the id of the message that was sent again.
 * Turns    A window is read before the next one is sent, so writers begin it at one time. One that lost twice sends one
 *          message without a condition: it is stored wherever it comes to stand.
 */
export class Writer {
  readonly id: string
  readonly #host: WriterHost
  readonly #patience: number
  /** The connection to the engine is gone for good, or the history has ended. */
  #end: SpillwayError | undefined
  #queue: Job[] = []
  #waiting = 0
  #count = 0
  #flushing: Promise<void> | undefined
  #isClosed = false
  readonly #sent = new Map<string, Job>()
  /** Appends under a key that are under way here. */
  readonly #keys = new Map<string, Promise<unknown>>()
  /** The newest keys that were read, oldest first. The engine knows those from before, for some minutes. */
  readonly #known = new Map<string, { readonly digest: string; readonly indexes: readonly number[] }>()

  constructor(id: string, host: WriterHost, patience: number) {
    this.id = id
    this.#host = host
    this.#patience = patience
  }

  async append(batches: readonly PendingBatch[], { key, expected }: AppendOptions): Promise<Appended> {
    if (this.#isClosed) throw new SpillwayError('CLOSED', 'The log was closed. The events were not stored.')
    if (this.#end) throw this.#end
    const digest = key === undefined ? undefined : digestOf(batches)
    if (key === undefined) return this.#add('batch', batches, bodiesOf(batches), { expected })
    // Under way here: what becomes of it decides.
    for (let same = this.#keys.get(key); same; same = this.#keys.get(key)) await same
    const first = this.#known.get(encodeURIComponent(key))
    if (first) {
      if (first.digest !== String(digest)) throw keyReused(key)
      return { indexes: first.indexes, duplicate: true }
    }
    const appended = this.#add('batch', batches, bodiesOf(batches), { key, digest, expected })
    const done = appended.then(ignore, ignore).then(() => this.#keys.delete(key))
    this.#keys.set(key, done)
    return appended
  }

  /** Stores a record that is no batch, in order with what was appended. */
  async note(kind: RecordKind, body: Uint8Array): Promise<void> {
    await this.#add(kind, [], [body], {})
  }

  /** Told of every append that was read, whoever made it. */
  read(records: readonly StreamRecord[]): void {
    const [first] = records as readonly [StreamRecord]
    const job = this.#sent.get(first.head.append)
    if (job) job.first = first.seq
    if (!first.key) return
    const indexes = records.filter(({ kind }) => kind === 'batch').map(({ seq }) => seq)
    this.#known.set(keyOf(first.key.id), { digest: first.key.digest, indexes })
    if (this.#known.size > keyWindow) for (const oldest of this.#known.keys()) return void this.#known.delete(oldest)
  }

  /** Nothing more can be stored: everything that waits is told so. */
  fail(error: SpillwayError): void {
    this.#end ??= error
  }

  /** Takes nothing more, and finishes what it took. */
  async close(): Promise<void> {
    this.#isClosed = true
    await this.#flushing
  }

  #add(
    kind: RecordKind,
    batches: readonly PendingBatch[],
    bodies: readonly Uint8Array[],
    { key, digest, expected }: AppendOptions & { digest?: number | undefined },
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
        deadline: performance.now() + this.#patience,
        attempt: 0,
        brokenOff: 0,
        wasSent: false,
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
      const window = this.#takeWindow()
      await this.#store(window)
      for (const { size } of window) this.#waiting -= size
    }
    this.#flushing = undefined
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
      const [first] = rest as readonly [Job]
      const isAlone = losses >= patientLosses && first.bodies.length === 1 && !first.isConditional
      const { problem, isConflict } = await this.#attempt(isAlone ? [first] : rest, isAlone)
      rest = rest.filter((job) => !job.isSettled)
      losses = isConflict ? losses + 1 : 0
      if (!problem) continue
      // Nothing can come any more of what waits, once the connection was closed for good.
      const now = engine.connection.isClosed() ? Number.POSITIVE_INFINITY : performance.now()
      this.#giveUp(
        [...rest, ...this.#queue].filter(({ deadline }) => deadline < now),
        problem,
      )
      rest = rest.filter((job) => !job.isSettled)
      this.#queue = this.#queue.filter((job) => !job.isSettled)
      if (rest.length > 0) await pause(pauseMs * Math.min(++pauses, 20))
    }
  }

  /** Sends `jobs`, and settles all of which it is then known what became of them. */
  async #attempt(jobs: readonly Job[], isAlone: boolean): Promise<{ problem?: Error; isConflict: boolean }> {
    try {
      const plans = await this.#planAll(jobs, isAlone)
      if (plans.length === 0) return { isConflict: false }
      const outcomes = await this.#send(plans, isAlone)
      const problem = failureIn(outcomes.flat(), 'unknown')
      const isConflict = outcomes.flat().some(({ kind }) => kind === 'conflict')
      for (const [n, plan] of plans.entries()) this.#settleStored(plan, outcomes[n] as Outcome[])
      if (problem || isConflict) await this.catchUp()
      else await within(this.#host.tail.reached(newestOf(outcomes)), this.#patience)
      for (const [n, plan] of plans.entries()) await this.#settle(plan, outcomes[n] as Outcome[])
      return problem ? { problem, isConflict } : { isConflict }
    } catch (cause) {
      return { problem: asError(cause), isConflict: false }
    }
  }

  /** The messages of appends, one behind the other, and all behind what was read. */
  async #planAll(jobs: readonly Job[], isAlone: boolean): Promise<Plan[]> {
    const plans: Plan[] = []
    let { seq } = this.#host.tail
    let { last } = this.#host
    for (const job of jobs) {
      let kinds = kindsOf(job, last, seq)
      if (kinds instanceof SpillwayError) {
        // Others may have appended what was not read yet.
        await this.catchUp()
        ;({ seq } = this.#host.tail)
        ;({ last } = this.#host)
        kinds = kindsOf(job, last, seq)
      }
      const refusal = kinds instanceof SpillwayError ? kinds : undefined
      if (refusal && job.key === undefined) {
        this.#reject(job, refusal)
        continue
      }
      plans.push(
        this.#plan(job, kinds instanceof SpillwayError ? ['batch'] : kinds, isAlone ? undefined : last, seq, refusal),
      )
      for (const kind of kinds instanceof SpillwayError ? [] : kinds) {
        seq++
        if (kind === 'batch') last = seq
      }
    }
    return plans
  }

  #plan(
    job: Job,
    kinds: readonly RecordKind[],
    last: number | undefined,
    seq: number,
    refusal: SpillwayError | undefined,
  ): Plan {
    const count = kinds.length
    if (count > 1 && job.wasSent) job.attempt++
    const append = `${job.name}.${job.attempt}`
    const time = this.#host.now()
    let previous = last
    let body = 0
    const drafts = kinds.map((kind, n): Draft => {
      const name = n === 0 ? (keyId(job) ?? append) : `${append}.${n + 1}`
      const data = kind === 'skipped' ? none : (job.bodies[body++] as Uint8Array)
      const head = { time, append, position: n + 1, count, previous }
      if (kind === 'batch') previous = seq + n + 1
      return { kind, head, data, id: name, digest: n === 0 ? job.digest : undefined }
    })
    this.#sent.set(append, job)
    return { job, drafts, refusal }
  }

  /** The outcomes of each plan's messages; of those behind one that was not stored there may be none. */
  async #send(plans: readonly Plan[], isAlone: boolean): Promise<Outcome[][]> {
    const { engine, tail } = this.#host
    const isProbe = plans.some(({ refusal }) => refusal)
    const drafts = plans.flatMap((plan) => plan.drafts)
    for (const { job } of plans) job.wasSent = true
    const outcomes: Outcome[] = []
    const start = isProbe ? never : tail.seq
    tail.hold()
    while (outcomes.length < drafts.length) {
      const from = outcomes.length
      const chunk = drafts.slice(from, from + mostInFlight)
      const answers = await Promise.all(
        chunk.map((draft, n) => {
          // The number alone would hold again once somebody else has filled the place of one that was refused, and the id
          // alone if the one before is a repetition of the newest message.
          const condition = { after: start + from + n, behind: drafts[from + n - 1]?.id }
          return engine.publish(draft, isAlone ? undefined : condition)
        }),
      )
      for (const [n, answer] of answers.entries()) {
        outcomes.push(answer)
        // Told at once, in order: the engine may let go of it before it could be read.
        if (answer.kind === 'stored') tail.take(recordOf(answer.seq, chunk[n] as Draft))
      }
      if (answers.some(({ kind }) => kind !== 'stored')) break
    }
    tail.release()
    let at = 0
    return plans.map((plan) => {
      const from = at
      at += plan.drafts.length
      return outcomes.slice(from, at)
    })
  }

  /** Settles an append that was read, or of which all messages were confirmed and read. */
  #settleStored({ job, drafts }: Plan, outcomes: readonly Outcome[]): void {
    const seqs = outcomes.flatMap((outcome) => (outcome.kind === 'stored' ? outcome.seq : []))
    const isConfirmed = seqs.length === drafts.length && (seqs.at(-1) as number) <= this.#host.tail.seq
    const start = job.first ?? (isConfirmed ? seqs[0] : undefined)
    if (start !== undefined) this.#resolve(job, { indexes: indexesOf(job.batches, start), duplicate: false })
  }

  async #settle(plan: Plan, outcomes: readonly Outcome[]): Promise<void> {
    const { job, refusal } = plan
    this.#settleStored(plan, outcomes)
    if (job.isSettled) return
    const [first] = outcomes
    const refused = failureIn(outcomes, 'refused')
    if (first?.kind === 'duplicate') await this.#settleDuplicate(job, first.seq)
    else if (refusal && first?.kind === 'conflict') this.#reject(job, refusal)
    else if (refused) this.#reject(job, engineFailure('The events were not stored.', refused))
  }

  /** The engine knows the first message: from this append, sent before, or from another one under the same key. */
  async #settleDuplicate(job: Job, seq: number): Promise<void> {
    const { engine, tail } = this.#host
    const found = await engine.message(seq)
    const record = found && engine.record(found)
    const isOwn = job.key === undefined || record?.head.append.startsWith(`${job.name}.`)
    if (isOwn && (record?.head.count ?? 1) === 1) {
      await within(tail.reached(seq), this.#patience)
      this.#resolve(job, { indexes: indexesOf(job.batches, seq), duplicate: false })
      return
    }
    if (found && headerOf(found, digestHeader) !== String(job.digest)) {
      this.#reject(job, keyReused(job.key as string))
      return
    }
    if (record && !(await this.#isWhole(record))) {
      job.brokenOff++
      return
    }
    const indexes = indexesOf(job.batches, seq)
    await within(tail.reached(indexes.at(-1) ?? seq), this.#patience)
    this.#resolve(job, { indexes, duplicate: true })
  }

  async #isWhole({ seq, head }: StreamRecord): Promise<boolean> {
    if (head.count === 1) return true
    const { engine } = this.#host
    const found = await engine.message(seq + head.count - head.position)
    return found !== undefined && engine.record(found)?.head.append === head.append
  }

  /** Reads to the end that the stream has now. */
  async catchUp(): Promise<void> {
    const info = await this.#host.engine.info()
    if (!info) throw new Error(`there is no stream ${this.#host.engine.stream}`)
    await within(this.#host.tail.reached(info.state.last_seq), this.#patience)
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
    for (let attempt = job.attempt; attempt >= 0; attempt--) this.#sent.delete(`${job.name}.${attempt}`)
  }

  #giveUp(jobs: readonly Job[], cause: Error): void {
    for (const job of jobs) {
      const outcome = job.wasSent
        ? 'It is not known whether the events were stored: publish them again under the same id.'
        : 'The events were not stored.'
      this.#reject(job, engineFailure(outcome, cause))
    }
  }
}

interface Plan {
  readonly job: Job
  readonly drafts: readonly Draft[]
  /** It cannot be stored, and is sent only to learn whether it was before. */
  readonly refusal: SpillwayError | undefined
}

function recordOf(seq: number, { kind, head, data, id, digest }: Draft): StreamRecord {
  const record = { seq, kind, head, data }
  return digest === undefined ? record : { ...record, key: { id, digest: String(digest) } }
}

const none = new Uint8Array()
const encoder = new TextEncoder()

function bodiesOf(batches: readonly PendingBatch[]): Uint8Array[] {
  return batches.map(({ events }) => encoder.encode(encodeBatch(events)))
}

/** The id by which the engine knows a repetition under a key. */
function keyId({ key, brokenOff }: Job): string | undefined {
  if (key === undefined) return undefined
  return `${encodeURIComponent(key)}~${brokenOff || ''}`
}

function keyOf(id: string): string {
  return id.slice(0, id.lastIndexOf('~'))
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

function newestOf(outcomes: readonly Outcome[][]): number {
  let newest = 0
  for (const outcome of outcomes.flat()) if (outcome.kind === 'stored') newest = Math.max(newest, outcome.seq)
  return newest
}

/** Rejects if `promise` takes longer than `ms` milliseconds. */
async function within<T>(promise: Promise<T>, ms: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`the stream was not read to its end within ${ms} ms`)), ms)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

function ignore(): undefined {}
