import type { PendingBatch, StoredBatch } from './event.ts'

/**
 * Where batches are kept. It gives them their indexes and is the one source of their order; it may outlive the process.
 * Every log behaves alike; they differ in what survives.
 */
export interface Log {
  /** Identity of this history. Positions of another epoch mean nothing here. */
  readonly epoch: string
  /** The newest index that is no longer kept. */
  readonly floor: number
  /** The newest index. */
  readonly last: number

  /**
   * Stores all of `batches` or none, each under its own index, and resolves with the indexes once the log's level of
   * durability is reached. Rejects with `INDEX_ORDER` if a wanted index is not above the one before it, with
   * `TOO_LARGE`, `LOG_FAILED`, or `CLOSED` after `close`.
   */
  append(batches: readonly PendingBatch[]): Promise<readonly number[]>

  /** Up to `limit` batches after index `after`, oldest first. An empty page means that there are none yet. */
  read(after: number, limit: number): Promise<LogPage>

  /** Calls `listener` with every batch stored from now on, whoever appended it, in index order. Gives back the undo. */
  follow(listener: (batch: StoredBatch) => void): () => void

  /** Stores nothing more. Harmless when done twice. */
  close(): Promise<void>
}

export interface LogPage {
  /** The log's floor when the page was read: above `after`, it says that batches before the page are gone. */
  readonly floor: number
  readonly batches: readonly StoredBatch[]
}
