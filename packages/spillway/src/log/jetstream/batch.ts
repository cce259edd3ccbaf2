import { bytesOf, decodeBatch } from '../../core/batch-text.ts'
import { StoredBatch } from '../../core/event.ts'
import type { StreamRecord } from './record.ts'

// A text that begins with U+FEFF keeps it.
const decoder = new TextDecoder('utf-8', { ignoreBOM: true })

/** The batch that a record holds; its index is the record's sequence. */
export function batchOf(epoch: string, { seq, data }: StreamRecord): StoredBatch {
  const events = decodeBatch(decoder.decode(data))
  return new StoredBatch(epoch, seq, { events, bytes: bytesOf(events, data.length) })
}
