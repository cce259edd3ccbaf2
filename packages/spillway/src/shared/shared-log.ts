import { encodeBatch } from '../core/batch-text.ts'
import { systemClock } from '../core/clock.ts'
import { SpillwayError, wrongOption } from '../core/errors.ts'
import type { PendingBatch, StoredBatch } from '../core/event.ts'
import type { Appended, AppendOptions, Log, LogNews, LogPage, LogStart, RightsChange } from '../core/log.ts'
import { microtask } from '../core/microtask.ts'
import { createRing, floorOf, openRing, type RecordType, recordType, type SharedHandle } from './layout.ts'
import { askedFor, decodePending, encodePage, type LogCall, type RightsNote } from './log-calls.ts'
import { answerCalls, checkPort, type SharedPort } from './port.ts'
import { host } from './runtime.ts'
import { Bell } from './wait.ts'
import { type RingWriter, writerOf } from './writer.ts'

export interface ShareOptions {
  /**
   * Bytes of what was published last that other threads find in shared memory, 65,536 to 2^30; rounded up to a power of two.
   * A batch of more than an eighth of it, and what a thread was too slow for, is read from the log. Default 16 MiB.
   */
  bytes?: number | undefined
}

/** A log that brokers in other threads may have, too. Its owner's thread answers them; what is published they read in shared memory. */
export interface SharedLog extends Log {
  /** Lets another thread open the log: send it what this gives and the other end of `port`, see `openSharedLog`. Throws `CONFIG`, or `CLOSED` after `close`. */
  connect(port: SharedPort): SharedLogHandle
}

/** What another thread needs beside its port to open a log: send it as `workerData` or in a message. */
export interface SharedLogHandle {
  readonly ring: SharedHandle
  readonly epoch: string
  /** Which of the connections this is. */
  readonly number: number
  /** How many changes of rights came before it. */
  readonly changes: number
}

const defaultBytes = 2 ** 24
/** Revocations that are remembered for those who lost a part of the ring. */
const mostRevoked = 2000
/** UTF-16 units of a subject that fit a record of the smallest ring, escaped. */
const longestSubject = 1024

/**
 * Lets other threads have `log`. Whoever publishes never waits for them. Give brokers of this thread what this gives back:
 * they then tell the others of changes of rights. Throws `CONFIG` that names the option.
 */
export function shareLog(log: Log, { bytes = defaultBytes }: ShareOptions = {}): SharedLog {
  if (typeof log?.follow !== 'function') throw wrongOption('log', 'a log', log)
  return new OwnedLog(log, createRing({ bytes }))
}

class OwnedLog implements SharedLog {
  readonly #log: Log
  readonly #memory: SharedHandle
  readonly #largest: number
  readonly #bell: Bell
  readonly #writer: RingWriter
  readonly #floor: BigInt64Array
  readonly #encoder = new host.TextEncoder()
  readonly #news = new Set<LogNews>()
  readonly #ports = new Map<SharedPort, number>()
  readonly #stopFollowing: () => void
  #scratch = new Uint8Array(1024)
  #lastPort = 0
  /** Counts the changes of rights, and remembers the newest revocations. */
  #changes = 0
  #revoked: { readonly number: number; readonly subject: string }[] = []
  /** The connection whose change of rights the log is being told of, 0 for this thread and for other servers. */
  #announcer = 0
  #willShow = false
  #awaited: { readonly index: number; resolve(): void }[] = []
  #closed: Promise<void> | undefined

  constructor(log: Log, memory: SharedHandle) {
    this.#log = log
    this.#memory = memory
    const ring = openRing(memory)
    this.#largest = ring.layout.largest
    this.#bell = new Bell(ring.layout.id)
    this.#writer = writerOf(ring, this.#bell)
    this.#floor = floorOf(memory)
    this.#writer.beginAfter(log.last)
    this.#write('', log.last, recordType.open)
    this.#show()
    this.#stopFollowing = log.follow((batch) => this.#take(batch), {
      missed: (upTo) => this.#pass(upTo),
      rights: (change) => this.#note(change, this.#announcer),
      ended: () => void this.close(),
    })
  }

  get epoch(): string {
    return this.#log.epoch
  }

  get floor(): number {
    return this.#log.floor
  }

  get last(): number {
    return this.#log.last
  }

  append(batches: readonly PendingBatch[], options?: AppendOptions): Promise<Appended> {
    return this.#log.append(batches, options)
  }

  read(after: number, limit: number): Promise<LogPage> {
    return this.#log.read(after, limit)
  }

  locate(start: LogStart): Promise<number> {
    return this.#log.locate(start)
  }

  follow(listener: (batch: StoredBatch) => void, news?: LogNews): () => void {
    const stop = this.#log.follow(listener, news)
    if (news) this.#news.add(news)
    return () => {
      stop()
      if (news) this.#news.delete(news)
    }
  }

  announce(change: RightsChange): void {
    this.#tell(change, 0)
  }

  connect(port: SharedPort): SharedLogHandle {
    checkPort(port)
    if (this.#closed) throw new SpillwayError('CLOSED', 'The log was closed.')
    const number = ++this.#lastPort
    this.#ports.set(port, number)
    answerCalls(
      port,
      (call: LogCall) => this.#answer(call, number),
      () => this.#ports.delete(port),
    )
    return { ring: this.#memory, epoch: this.epoch, number, changes: this.#changes }
  }

  close(): Promise<void> {
    this.#closed ??= this.#shutDown()
    return this.#closed
  }

  async #shutDown(): Promise<void> {
    await this.#log.close()
    this.#stopFollowing()
    this.#settle(Number.POSITIVE_INFINITY)
    this.#write('', this.#writer.index, recordType.closed)
    this.#writer.publish()
    this.#bell.close()
    // Behind the answers to what was still stored.
    systemClock.defer(() => {
      for (const port of this.#ports.keys()) port.close()
    })
  }

  async #answer(call: LogCall, from: number): Promise<unknown> {
    switch (call.name) {
      case 'append': {
        const appended = await this.#log.append(decodePending(call.batches), call.options)
        // Whoever asked finds it in the ring once the answer is there.
        await this.#written(Math.min(appended.indexes.at(-1) ?? 0, this.#log.last))
        this.#show()
        return appended
      }
      case 'read': {
        const page = await this.#log.read(call.after, call.limit)
        this.#showFloor()
        return encodePage(page)
      }
      case 'locate':
        return this.#log.locate(call.start)
      case 'floor':
        return this.#showFloor()
      case 'announce':
        return this.#tell(call.change, from)
      case 'revoked':
        return this.#revoked.flatMap(({ number, subject }) => (number > call.after ? subject : []))
    }
  }

  /** `from`: the number of the connection by which it came, 0 for this thread. */
  #tell(change: RightsChange, from: number): void {
    if (!this.#log.announce) {
      this.#note(change, from)
      for (const news of this.#news) news.rights(change)
      return
    }
    // It tells those who follow it before it returns, this one and the brokers of this thread among them.
    this.#announcer = from
    try {
      this.#log.announce(change)
    } finally {
      this.#announcer = 0
    }
  }

  /** Tells the other threads. */
  #note(change: RightsChange, from: number): void {
    const number = ++this.#changes
    const { subject, isRevoked } = change
    if (isRevoked && subject !== undefined) this.#revoked.push({ number, subject })
    if (this.#revoked.length > mostRevoked) this.#revoked = this.#revoked.slice(-mostRevoked / 2)
    const isLong = subject !== undefined && subject.length > longestSubject
    const note: RightsNote = { number, from: isLong ? 0 : from, ...(isLong ? askedFor : change) }
    this.#write(JSON.stringify(note), this.#writer.index, recordType.rights)
    this.#show()
  }

  /** The log did not tell of the batches up to `upTo`: they can be read. */
  #pass(upTo: number): void {
    this.#write('', upTo, recordType.gap)
    this.#showSoon()
    this.#settle(upTo)
  }

  #take({ events, index }: StoredBatch): void {
    try {
      const text = encodeBatch(events)
      // It has no fewer bytes: to encode it would only take memory.
      if (text.length > this.#largest) this.#write('', index, recordType.gap)
      else this.#write(text, index, recordType.batch, events.length)
    } catch (error) {
      if (!(error instanceof SpillwayError) || error.code !== 'TOO_LARGE') throw error
      this.#write('', index, recordType.gap)
    }
    this.#showSoon()
    this.#settle(index)
  }

  #settle(index: number): void {
    while (this.#awaited[0] && this.#awaited[0].index <= index) this.#awaited.shift()?.resolve()
  }

  #written(index: number): Promise<void> | undefined {
    if (index <= this.#writer.index || this.#closed) return undefined
    return new Promise((resolve) => this.#awaited.push({ index, resolve }))
  }

  #showSoon(): void {
    if (this.#willShow) return
    this.#willShow = true
    microtask(() => this.#show())
  }

  #show(): void {
    this.#willShow = false
    this.#showFloor()
    this.#writer.publish()
  }

  #showFloor(): void {
    Atomics.store(this.#floor, 0, BigInt(this.#log.floor))
  }

  #write(text: string, index: number, type: RecordType, events = 0): void {
    // [UTF-8] Three bytes for a UTF-16 unit at the most.
    if (this.#scratch.length < text.length * 3) this.#scratch = new Uint8Array(text.length * 4)
    const { written } = this.#encoder.encodeInto(text, this.#scratch)
    this.#writer.append(this.#scratch.subarray(0, written), index, type, 0, 0, events)
  }
}
