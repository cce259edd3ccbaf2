import type { StreamInfo } from '@nats-io/jetstream'
import type { NatsConnection } from '@nats-io/nats-core'
import { type Clock, systemClock } from '../core/clock.ts'
import { newEpoch } from '../core/cursor.ts'
import { integerOption, SpillwayError, wrongOption } from '../core/errors.ts'
import type { PendingBatch, StoredBatch } from '../core/event.ts'
import { Followers } from '../core/followers.ts'
import type { Appended, AppendOptions, Log, LogNews, LogPage, LogStart, RightsChange } from '../core/log.ts'
import { batchOf } from './jetstream/batch.ts'
import { checkDurability, checkVersion, isReplicated, type JetStreamDurability } from './jetstream/durability.ts'
import { Engine } from './jetstream/engine.ts'
import { asError, engineFailure } from './jetstream/failure.ts'
import { partsOf } from './jetstream/history.ts'
import { importParts } from './jetstream/import.ts'
import { Keys } from './jetstream/keys.ts'
import {
  beginAnew,
  findStream,
  identify,
  isTimeout,
  type OpenedStream,
  openFailure,
  openStream,
} from './jetstream/open.ts'
import { Pages } from './jetstream/pages.ts'
import { Assembler, headerName, parseHead, type StreamRecord } from './jetstream/record.ts'
import { Tail } from './jetstream/tail.ts'
import { Writer, within } from './jetstream/writer.ts'
import type { FilePart } from './sqlite.ts'

export type { JetStreamDurability } from './jetstream/durability.ts'
export type { FilePart, FileRange } from './sqlite.ts'

export interface JetStreamLogOptions {
  /** A connection to the cluster, as `connect` of a NATS transport gives it. Let it reconnect for ever; the log does not close it. */
  connection: NatsConnection
  /** The name of the stream: letters, digits, `_` and `-`. It is made if there is none. */
  stream: string
  /** Nodes that keep the stream, 1 to 5. Default: as it is; 3 for durability `machine`, otherwise 1, where it is made. */
  replicas?: number | undefined
  /** What an acknowledged append survives; checked when the log is opened. Default `machine` in a cluster of 3 or more replicas, otherwise `process`. */
  durability?: JetStreamDurability | undefined
  /** Monitoring endpoints of the nodes, such as `http://10.0.0.1:8222`. Needed for durability `power`. */
  monitor?: string | readonly string[] | undefined
  /** Batches that are kept. Default: as it is; no limit where the stream is made. */
  capacity?: number | undefined
  /** Bytes that are kept, as the engine counts them: with some 200 beside each batch. 0: no limit. Default: as it is; 1 GiB where the stream is made. */
  maxBytes?: number | undefined
  /** Milliseconds that batches are kept, 100 at least, by the engine's clock. Default: as it is; no limit where the stream is made. */
  maxAge?: number | undefined
  /** Milliseconds that an append waits for an engine that does not answer, before it is given up. Default 30,000. */
  patience?: number | undefined
  /** Takes a nats-server before 2.10.23, too. Default false. */
  allowOld?: boolean | undefined
  /** What batches are dated by. */
  clock?: Clock | undefined
}

/** A log in a stream of NATS JetStream. */
export interface JetStreamLog extends Log {
  readonly stream: string
  /** What was found to hold when it was opened. */
  readonly durability: JetStreamDurability
  /**
   * Why nothing could be stored when the stream was last looked at, which is about every second: the engine did not answer,
   * its node knows of no leader, or an append waits for its answer in vain. `undefined`: nothing was wrong.
   */
  readonly failure: Error | undefined
  /** Resolves with the reason when this history has ended though nobody closed it: its stream was removed, or made anew. */
  readonly ended: Promise<Error>
}

const defaultPatience = 30_000
/** How often it is tried to open a log where nobody answers; each time takes 2 s. */
const mostOpenings = 5
const shortestAge = 100
const mostReplicas = 5
/** How often the stream is looked at, in milliseconds. */
const lookMs = 1000
/** How often in a row a stream must be seen to have lost its newest messages: a leader that just took over may still be behind. */
const looksUntilLost = 5
/** How often in a row it must be missing: nodes that elect their leader may not know of it. */
const looksUntilGone = 3
/** How long an index that a reader has from another server may take to come, before the true end is looked for, and how long that may take, in milliseconds. */
const aheadMs = 1000
const endMs = 5000
const namePattern = /^[A-Za-z0-9_-]{1,64}$/

/**
 * Opens a log in a stream of NATS JetStream, or makes it. Any number of servers may have it open: they share epoch and
 * indexes, so a reader may leave one and resume at another.
 *
 * Order    One batch is one message; its index is the message's sequence. A batch is appended on the condition that nothing
 *          came between, so appends keep the order of their calls, whatever fails, and those of other servers fall between.
 * Whole    An append of several batches counts once its last message is there; what broke off is passed over by all.
 * Losses   Batches name the one before them, so what the engine lost or let go of is told: see `LogPage`.
 * Ending   A stream that was removed, or made anew, ends the history: brokers close and tell readers to resubscribe.
 *
 * Needs nats-server 2.10.23. Rejects with `CONFIG`; `LOG_UNUSABLE` for a server that is too old or has no JetStream, a stream
 * that belongs to something else, or one that does not give `durability`; `LOG_FAILED` where the engine does not answer.
 */
export async function jetstreamLog(options: JetStreamLogOptions): Promise<JetStreamLog> {
  checkOptions(options)
  const { connection, stream } = options
  for (let attempt = 1; ; attempt++) {
    try {
      return await openLog(await Engine.of(connection, stream), options)
    } catch (cause) {
      // A stream that was made a moment ago has no leader yet, and then nobody answers.
      if (!isTimeout(cause) || attempt === mostOpenings) throw openFailure(stream, cause)
    }
  }
}

async function openLog(engine: Engine, options: JetStreamLogOptions): Promise<JetStreamLog> {
  const { clock = systemClock, durability, patience = defaultPatience, monitor = [] } = options
  const { replicas, capacity, maxBytes, maxAge } = options
  const wanted = replicas ?? (durability === 'machine' ? 3 : undefined)
  const opened = await openStream(engine, { replicas: wanted, capacity, maxBytes, maxAge })
  const level = durability ?? (isReplicated(opened.info) ? 'machine' : 'process')
  await checkDurability(level, opened.info, typeof monitor === 'string' ? [monitor] : monitor)
  engine.base = opened.base
  engine.sender.allowsGroups = opened.info.config.allow_atomic === true
  const newest = await newestOf(engine, opened.info)
  const floor = await floorOf(engine, newest.last)
  const keys = await Keys.read(engine, newest.after)
  return new StreamLog(engine, opened, { keys, level, ...newest, floor, patience, clock })
}

/** Throws `CONFIG` that names the option, `LOG_FAILED` for a connection that is away, and `LOG_UNUSABLE` for an engine that is too old. */
function checkOptions(options: JetStreamLogOptions): void {
  const { connection, stream, allowOld = false, durability } = options
  const { replicas, capacity, maxBytes, maxAge, patience } = options
  if (typeof connection?.request !== 'function') throw wrongOption('connection', 'a NATS connection', connection)
  if (typeof stream !== 'string' || !namePattern.test(stream)) {
    throw wrongOption('stream', '1 to 64 letters, digits, "_" and "-"', stream)
  }
  if (durability !== undefined && !['process', 'machine', 'power'].includes(durability)) {
    throw wrongOption('durability', '"process", "machine" or "power"', durability)
  }
  if (replicas !== undefined) integerOption('replicas', replicas, 1, mostReplicas)
  if (capacity !== undefined) integerOption('capacity', capacity, 1)
  if (maxBytes !== undefined) integerOption('maxBytes', maxBytes, 0)
  if (maxAge !== undefined) integerOption('maxAge', maxAge, shortestAge)
  if (patience !== undefined) integerOption('patience', patience, 1, 2 ** 31 - 1)
  if (!connection.info) throw openFailure(stream, new Error('the connection is away'))
  checkVersion(connection.info.version, allowOld)
}

/**
 * Makes a log of parts with ascending indexes, such as those of another log; a thousand batches make a good part. Their
 * indexes and times are kept, and readers are told what is missing. Resolves with the number of batches. The log has an epoch
 * of its own, and is there whole or not at all: nobody can open it meanwhile. `maxBytes` is by default 1 GiB, or what was
 * imported if that is more. Needs nats-server 2.10.
 *
 * Rejects with `CONFIG`; `LOG_UNUSABLE` if there is a stream of that name already or it cannot be made; `LOG_FAILED` where the
 * engine stores no more; `TOO_LARGE` for a batch that no message of the engine can hold; `INVALID` for a time more than a day
 * ahead of the clock, and for more than 1,000,000 numbers without a batch, since each takes a message; `INDEX_ORDER` for an
 * index that is not above the one before; with what `parts` throws.
 */
export async function importJetstream(
  options: Pick<
    JetStreamLogOptions,
    'connection' | 'stream' | 'replicas' | 'capacity' | 'maxBytes' | 'maxAge' | 'allowOld'
  >,
  parts: AsyncIterable<FilePart> | Iterable<FilePart>,
): Promise<number> {
  checkOptions(options)
  const { connection, stream, replicas, capacity, maxBytes, maxAge } = options
  return importParts(await Engine.of(connection, stream), { replicas, capacity, maxBytes, maxAge }, parts)
}

/** The history in a stream, to look at: with servers or without. It changes nothing. */
export interface JetStreamHistory {
  readonly epoch: string
  /** The newest index that was no longer kept when it was opened. */
  readonly floor: number
  /** The newest index when it was opened. */
  readonly last: number
  /** Everything after `floor` and up to `last`. `removed`: the engine let go of it after it was opened here. Rejects with `LOG_FAILED`. */
  parts(): AsyncGenerator<FilePart>
}

/**
 * Opens the history in a stream to look at it, also while it is served. Rejects with `CONFIG`; `LOG_UNUSABLE` if there is no
 * such stream, or it is no log's; `LOG_FAILED` where the engine does not answer.
 */
export async function openJetstreamHistory(
  options: Pick<JetStreamLogOptions, 'connection' | 'stream' | 'allowOld'>,
): Promise<JetStreamHistory> {
  checkOptions(options)
  const { connection, stream } = options
  try {
    const engine = await Engine.of(connection, stream)
    const { info, epoch, base } = await findStream(engine)
    engine.base = base
    const { last } = await newestOf(engine, info)
    const floor = await floorOf(engine, last)
    const messageBytes = messageBytesOf(info)
    const extent = { epoch, end: last, messageBytes, knownFloor: floor, floor: () => floorOf(engine, last) }
    return { epoch, floor, last, parts: () => partsOf(engine, floor, extent) }
  } catch (cause) {
    throw openFailure(stream, cause)
  }
}

/** Where a log's reading begins. */
interface Newest {
  /** The newest index. */
  readonly last: number
  /** After which sequence to read on: before an append that is not whole yet, and what may be the beginning of one. */
  readonly after: number
  /** The log's time then. */
  readonly time: number
}

async function newestOf(engine: Engine, { state }: StreamInfo): Promise<Newest> {
  const message = await engine.newest('batch')
  const record = message && engine.record(message)
  if (!record) return { last: state.last_seq, after: Math.max(0, state.first_seq - 1), time: 0 }
  const { seq, head } = record
  const { time, position, count } = head
  if (position === count) {
    // An import may end with what is lost.
    const lost = (await engine.newest('lost'))?.seq ?? 0
    return { last: Math.max(seq, lost), after: Math.max(seq, lost), time }
  }
  const start = await engine.message(seq - position + 1)
  const before = (start && engine.record(start)?.head.previous) ?? seq - position
  return { last: before, after: seq - position, time }
}

/** The newest index that is no longer kept. */
async function floorOf(engine: Engine, last: number): Promise<number> {
  const oldest = await engine.next('batch', 1)
  if (!oldest) return last
  return Math.min(engine.record(oldest)?.head.previous ?? oldest.seq - 1, last)
}

interface Beginning extends Newest {
  readonly keys: Keys
  readonly level: JetStreamDurability
  readonly floor: number
  readonly patience: number
  readonly clock: Clock
}

class StreamLog implements JetStreamLog {
  readonly stream: string
  readonly epoch: string
  readonly durability: JetStreamDurability
  readonly ended: Promise<Error>
  readonly #engine: Engine
  readonly #clock: Clock
  readonly #followers = new Followers()
  readonly #news = new Set<LogNews>()
  readonly #tail: Tail
  readonly #writer: Writer
  readonly #keys: Keys
  readonly #pages: Pages
  #assembler = new Assembler()
  #mayMiss = false
  #last: number
  #floor: number
  #time: number
  /** The newest record that was read. */
  #newest: { readonly seq: number; readonly name: string } | undefined
  /** When the stream had last changed as it was compared with that. */
  #comparedAt = ''
  #messageBytes: number
  #end: (reason: Error) => void = ignore
  #hasEnded = false
  #failure: Error | undefined
  #looksLost = 0
  #looksGone = 0
  #lastEnd: Promise<void> = Promise.resolve()
  #nextEnd: Promise<void> | undefined
  #look: ReturnType<typeof setTimeout>
  #closed: Promise<void> | undefined

  constructor(
    engine: Engine,
    { epoch, info }: OpenedStream,
    { keys, level, last, after, time, floor, patience, clock }: Beginning,
  ) {
    this.stream = engine.stream
    this.epoch = epoch
    this.durability = level
    this.#engine = engine
    this.#clock = clock
    this.#last = last
    this.#floor = floor
    this.#time = time
    this.#messageBytes = messageBytesOf(info)
    this.ended = new Promise((resolve) => {
      this.#end = resolve
    })
    const log = this
    this.#keys = keys
    this.#tail = new Tail(engine, after, {
      record: (record) => this.#hear(record),
      skipped: () => this.#miss(),
      gone: (upTo) => {
        this.#miss()
        this.#tellMissed(upTo)
      },
    })
    this.#writer = new Writer(
      newEpoch(Date.now()),
      {
        engine,
        tail: this.#tail,
        keys: this.#keys,
        get last() {
          return log.#last
        },
        now: () => Math.max(clock.now(), log.#time),
        // Fails where the engine is not well yet: then whoever looks next tells.
        givenAgain: (seq) => void log.#renew(givenAgain(this.stream, seq)).catch(ignore),
      },
      patience,
    )
    this.#pages = new Pages(engine, {
      epoch,
      get end() {
        return log.#last
      },
      get messageBytes() {
        return log.#messageBytes
      },
      get knownFloor() {
        return log.#floor
      },
      floor: () => log.#askFloor(),
    })
    this.#look = this.#lookLater()
  }

  get floor(): number {
    return this.#floor
  }

  get last(): number {
    return this.#last
  }

  get failure(): Error | undefined {
    return this.#failure
  }

  append(batches: readonly PendingBatch[], options: AppendOptions = {}): Promise<Appended> {
    return this.#writer.append(batches, options)
  }

  async read(after: number, limit: number): Promise<LogPage> {
    if (this.#closed) throw closedError()
    return this.#pages.read(after, limit)
  }

  async locate(start: LogStart): Promise<number> {
    if (this.#closed) throw closedError()
    const floor = await this.#askFloor()
    const last = this.#last
    return 'last' in start ? this.#locateLast(start.last, floor, last) : this.#locateSince(start.since, floor, last)
  }

  follow(listener: (batch: StoredBatch) => void, news?: LogNews): () => void {
    const stop = this.#followers.add(listener, this.#last)
    if (news) this.#news.add(news)
    return () => {
      stop()
      if (news) this.#news.delete(news)
    }
  }

  /** What was acknowledged comes. What does not was made up, or the engine lost it: the true end tells. */
  async catchUp(index: number): Promise<void> {
    try {
      await within(this.#tail.reached(index), aheadMs)
    } catch {
      await this.#findEnd().catch((cause) => {
        throw engineFailure('It is not certain what was stored last.', cause)
      })
    }
  }

  /**
   * Stores a message and reads up to it. The end that the engine tells would not do: a node that was cut from the others
   * takes itself for the leader for some seconds, and its own end for that of all.
   */
  #findEnd(): Promise<void> {
    // All who come while one is under way share the next, for it may stand before what they ask for.
    this.#nextEnd ??= this.#lastEnd.then(() => {
      this.#nextEnd = undefined
      const found = within(this.#writer.note('skipped', new Uint8Array()), endMs)
      this.#lastEnd = found.catch(ignore)
      return found
    })
    return this.#nextEnd
  }

  announce(change: RightsChange): void {
    for (const news of this.#news) news.rights(change)
    const body = encoder.encode(JSON.stringify({ from: this.#writer.id, ...change }))
    // Until it is stored, or this history is over: nobody else would tell the other servers.
    const tell = async (): Promise<void> => {
      while (!this.#hasEnded && !this.#closed) {
        const isStored = await this.#writer.note('rights', body, Number.POSITIVE_INFINITY).then(
          () => true,
          () => false,
        )
        if (isStored) return
        await new Promise((resolve) => this.#clock.after(lookMs, () => resolve(undefined)))
      }
    }
    void tell()
  }

  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    clearTimeout(this.#look)
    await this.#writer.close()
    this.#pages.close()
    await this.#tail.close()
    this.#engine.close()
  }

  #hear(record: StreamRecord): void {
    this.#time = Math.max(this.#time, record.head.time)
    this.#newest = { seq: record.seq, name: nameOf(record) }
    this.#writer.hear(record)
    const whole = this.#assembler.take(record)
    for (const part of whole) {
      if (part.kind === 'rights') this.#heed(part)
      if (part.kind !== 'batch') continue
      if (this.#mayMiss) this.#compareWithLast(part)
      this.#last = part.seq
      this.#followers.tell([batchOf(this.epoch, part)])
    }
    const [first] = whole
    if (!first) return
    this.#keys.note(record)
    this.#writer.read(first)
  }

  /** Messages were gone before they could be read. */
  #miss(): void {
    // Among them may have been a change of rights, which counts for what came after it.
    for (const news of this.#news) news.rights({ subject: undefined, isRevoked: false })
    this.#assembler = new Assembler()
    this.#mayMiss = true
  }

  /** Whether batches were among what was gone, is told with the first one after it. */
  #compareWithLast({ seq, head }: StreamRecord): void {
    this.#mayMiss = false
    if (head.previous === undefined || head.previous > this.#last) this.#tellMissed(seq - 1)
  }

  #tellMissed(upTo: number): void {
    this.#mayMiss = false
    this.#last = upTo
    for (const news of this.#news) news.missed(upTo)
  }

  #heed({ data }: StreamRecord): void {
    const { from, subject, isRevoked = false } = parseRights(data)
    if (from === this.#writer.id) return
    for (const news of this.#news) news.rights({ subject, isRevoked })
  }

  async #askFloor(): Promise<number> {
    this.#floor = Math.max(this.#floor, await floorOf(this.#engine, this.#last))
    return this.#floor
  }

  /** Changes of rights and skipped numbers have sequences, too: it is asked until the count fits. */
  async #locateLast(count: number, floor: number, last: number): Promise<number> {
    let after = Math.max(floor, last - count)
    if (await this.#engine.hasBatchesOnly()) return after
    while (after > floor) {
      const found = await this.#engine.count('batch', after + 1)
      if (found >= count) break
      after = Math.max(floor, after - (count - found))
    }
    return after
  }

  async #locateSince(since: number, floor: number, last: number): Promise<number> {
    let low = floor
    let high = last
    // Everything up to `low` is older, everything after `high` is not.
    while (low < high) {
      const middle = low + Math.floor((high - low) / 2)
      const found = await this.#engine.next('batch', middle + 1)
      const time = found && found.seq <= high ? parseHead(found.header.get(headerName))?.time : undefined
      if (found && time !== undefined && time < since) low = found.seq
      else high = middle
    }
    return low
  }

  #lookLater(): ReturnType<typeof setTimeout> {
    const timer = setTimeout(async () => {
      this.#failure = await this.#lookNow().catch(asError)
      if (!this.#closed && !this.#hasEnded) this.#look = this.#lookLater()
    }, lookMs)
    timer.unref?.()
    return timer
  }

  /** Sees whether this is still the stream that was opened, and whether what it has was read. */
  async #lookNow(): Promise<Error | undefined> {
    if (this.#engine.connection.isClosed()) return this.#over(new Error('the connection to the engine was closed'))
    // Before it is asked: while the answer is under way more is written and read.
    const read = this.#tail.seq
    const info = await this.#engine.info()
    if (this.#closed) return undefined
    this.#looksGone = info ? 0 : this.#looksGone + 1
    if (this.#looksGone >= looksUntilGone) this.#over(new Error(`the stream ${this.stream} was removed`))
    if (!info) return
    if (identify(this.stream, info)?.epoch !== this.epoch) {
      return this.#over(new Error(`the stream ${this.stream} was made anew: this is another history`))
    }
    this.#engine.sender.allowsGroups = info.config.allow_atomic === true
    const { last_seq: newest } = info.state
    const isSure = info.cluster === undefined || Boolean(info.cluster.leader)
    this.#looksLost = isSure && newest < read ? this.#looksLost + 1 : 0
    if (this.#looksLost >= looksUntilLost) {
      return this.#renew(`the stream ${this.stream} ends at ${newest}, but ${this.#tail.seq} was acknowledged`)
    }
    if (info.state.last_ts !== this.#comparedAt) {
      const again = await this.#seqGivenAgain()
      if (again) return this.#renew(givenAgain(this.stream, again))
      this.#comparedAt = info.state.last_ts
    }
    await this.#tail.check(newest)
    this.#messageBytes = messageBytesOf(info)
    if (info.state.first_seq > this.#floor + 1) await this.#askFloor()
    // A node that is cut from the others answers this, too.
    return isSure ? this.#writer.problem : new Error(`the stream ${this.stream} has no leader`)
  }

  /** The engine lost what it had acknowledged, and would give its sequences again: what follows is another history. */
  async #renew(reason: string): Promise<undefined> {
    await beginAnew(this.#engine)
    return this.#over(new Error(reason))
  }

  /** The newest sequence that was read, if there is another record now: those that append may have filled a loss before it was seen. */
  async #seqGivenAgain(): Promise<number | undefined> {
    const newest = this.#newest
    const found = newest && (await this.#engine.message(newest.seq))
    if (!found) return undefined
    const record = this.#engine.record(found)
    return record && nameOf(record) === newest.name ? undefined : newest.seq
  }

  #over(reason: Error): undefined {
    if (this.#hasEnded) return
    this.#hasEnded = true
    this.#writer.fail(engineFailure('This history has ended. The events were not stored.', reason))
    this.#end(reason)
    for (const news of this.#news) news.ended()
    void this.close()
  }
}

const encoder = new TextEncoder()
const decoder = new TextDecoder()

/** No other record of the stream has it. */
function nameOf({ head }: StreamRecord): string {
  return `${head.append} ${head.position}`
}

/** What cannot be read may have been about anybody. */
function parseRights(data: Uint8Array): Partial<RightsChange> & { readonly from?: string } {
  try {
    return JSON.parse(decoder.decode(data)) ?? {}
  } catch {
    return {}
  }
}

function givenAgain(stream: string, seq: number): string {
  return `the stream ${stream} has given the number ${seq} a second time`
}

function messageBytesOf({ state }: StreamInfo): number {
  return state.messages > 0 ? state.bytes / state.messages : 1
}

function closedError(): SpillwayError {
  return new SpillwayError('CLOSED', 'The log was closed.')
}

function ignore(): void {}
