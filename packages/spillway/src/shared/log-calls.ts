import { decodeBatch, encodeBatch } from '../core/batch-text.ts'
import { type PendingBatch, StoredBatch } from '../core/event.ts'
import type { AppendOptions, LogPage, LogStart, RightsChange } from '../core/log.ts'

/** What a thread asks of the one that owns a log. */
export type LogCall =
  | { readonly name: 'append'; readonly batches: readonly PlainBatch[]; readonly options: AppendOptions }
  | { readonly name: 'read'; readonly after: number; readonly limit: number }
  | { readonly name: 'locate'; readonly start: LogStart }
  | { readonly name: 'floor' }
  | { readonly name: 'announce'; readonly change: RightsChange }
  /** The subjects that were revoked after change `after`, as far as the owner remembers. */
  | { readonly name: 'revoked'; readonly after: number }

/** A change of rights as a record of the ring. */
export interface RightsNote extends RightsChange {
  /** Counts the changes of a log. */
  readonly number: number
  /** Which connection it came by: who is there knows it already. 0: by none. */
  readonly from: number
}

/** What a record has whose subject is too long for it: whoever reads it asks. */
export const askedFor: RightsChange = { subject: undefined, isRevoked: true }

/** A batch whose events are text, which costs structured cloning the least. */
interface PlainBatch extends Omit<PendingBatch, 'events'> {
  readonly text: string
}

export interface PlainPage extends Omit<LogPage, 'batches'> {
  readonly batches: readonly { readonly index: number; readonly bytes: number; readonly text: string }[]
}

export function encodePending(batches: readonly PendingBatch[]): PlainBatch[] {
  return batches.map(({ events, ...rest }) => ({ ...rest, text: encodeBatch(events) }))
}

export function decodePending(batches: readonly PlainBatch[]): PendingBatch[] {
  return batches.map(({ text, ...rest }) => ({ ...rest, events: decodeBatch(text) }))
}

export function encodePage({ batches, ...page }: LogPage): PlainPage {
  return { ...page, batches: batches.map(({ index, bytes, events }) => ({ index, bytes, text: encodeBatch(events) })) }
}

export function decodePage({ batches, ...page }: PlainPage, epoch: string): LogPage {
  return {
    ...page,
    batches: batches.map(
      ({ index, bytes, text }) => new StoredBatch(epoch, index, { bytes, events: decodeBatch(text) }),
    ),
  }
}
