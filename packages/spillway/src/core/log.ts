import type { PendingBatch, StoredBatch, StoredEvent } from './event.ts'

/**
 * Where batches are kept. It gives them their indexes and is the one source of their order; it may outlive the process.
 * Every log behaves alike; they differ in what survives. `logSuite` of `spillway/testing` is this contract as tests.
 */
export interface Log {
  /** Identity of this history. Positions of another epoch mean nothing here. */
  readonly epoch: string
  /** The newest index that is no longer kept. */
  readonly floor: number
  /** The newest index. */
  readonly last: number

  /**
   * Stores all of `batches` or none, each under its own index, and resolves once the log's level of durability is
   * reached. Rejects with `INDEX_ORDER` if a wanted index is not above the one before it, with `INDEX_MISMATCH`,
   * `KEY_REUSED`, `TOO_LARGE`, `OVERLOADED`, `LOG_FAILED`, or `CLOSED` after `close`.
   */
  append(batches: readonly PendingBatch[], options?: AppendOptions): Promise<Appended>

  /** Up to `limit` batches after index `after`, oldest first. An empty page means that there are none yet. */
  read(after: number, limit: number): Promise<LogPage>

  /** The index that a reader starts after to get what `start` says, from `floor` to `last`. */
  locate(start: LogStart): Promise<number>

  /**
   * Calls `listener` with every batch stored from now on, whoever appended it, in index order; and `news`, in order with
   * the batches, where the log has other things to tell. Gives back the undo.
   */
  follow(listener: (batch: StoredBatch) => void, news?: LogNews): () => void

  /**
   * A reader of this history says that it has seen `index`, perhaps at another server of the log, which was told more.
   * Resolves when followers were told of it, or of all that was stored when this was called. Rejects where that is not
   * certain. Absent: they always are.
   */
  catchUp?(index: number): Promise<void>

  /**
   * Tells all brokers of this log that rights have changed: those of this thread before it returns, the others in order
   * with the batches. A log that only one broker reads has no need of it.
   */
  announce?(change: RightsChange): void

  /** Stores nothing more; what was accepted is finished first. Harmless when done twice. */
  close(): Promise<void>
}

/** What a log may have to tell beside batches: one that several brokers read, each at a distance. */
export interface LogNews {
  /** The listener was not told of the batches up to this index, which is above all that it was told of. They can be read. */
  missed(upTo: number): void
  rights(change: RightsChange): void
  /** The log was closed by its owner. */
  ended(): void
}

/** Whose rights have changed. */
export interface RightsChange {
  /** `undefined`: anybody's may have. */
  readonly subject: string | undefined
  /** Whether they are known to be gone, so that nobody need be asked. */
  readonly isRevoked: boolean
}

export interface AppendOptions {
  /**
   * Names this append, so that it can be repeated when its answer was lost: a second one with the same key stores nothing
   * and gives the indexes of the first. The newest {@link keyWindow} keys are remembered, for as long as the log lives.
   * The same key with other batches rejects with `KEY_REUSED`.
   */
  readonly key?: string | undefined
  /** Appends only if this is the newest index, and rejects with `INDEX_MISMATCH` otherwise. */
  readonly expected?: number | undefined
}

export interface Appended {
  /** One for each batch. */
  readonly indexes: readonly number[]
  /** Whether an earlier append with the same key had stored them. */
  readonly duplicate: boolean
}

/**
 * The first batch stored at or after `since`, in Unix milliseconds; or the newest `last` batches. A log's time neither jumps
 * nor falls, so it may differ from the wall clock by what that was set since the log was opened.
 */
export type LogStart = { readonly since: number } | { readonly last: number }

/** The last time that a `Date` has, in Unix milliseconds. [ECMA-262, Time Values and Time Range] */
export const latestTime = 8_640_000_000_000_000

/** A batch of a history, with what a log knows of it beside its events. */
export interface HistoryBatch {
  readonly index: number
  /** When it was stored, in Unix milliseconds. */
  readonly time: number
  readonly events: readonly StoredEvent[]
}

export interface LogPage {
  /** The log's floor when the page was read: above `after`, it says that batches before the page are gone. */
  readonly floor: number
  /** Above `after`, it says that batches after `after` and up to this index were damaged and are lost. */
  readonly lost?: number
  readonly batches: readonly StoredBatch[]
}

/** How many keys of appends a log remembers. */
export const keyWindow = 100_000
