import { encodeBatch } from '../../core/batch-text.ts'
import { SpillwayError } from '../../core/errors.ts'
import { type EventInput, encodeEvents } from '../../core/event.ts'
import { type PostgresFault, type PostgresTransaction, rowsOf, said } from './client.ts'
import type { Names } from './tables.ts'
import { tooLarge } from './writer.ts'

/** Puts events into the outbox, as a part of `tx`. */
export async function writeInto(
  tx: PostgresTransaction,
  names: Names,
  input: EventInput | readonly EventInput[],
  maxBytes: number,
): Promise<void> {
  const list = Array.isArray(input) ? (input as readonly EventInput[]) : [input as EventInput]
  if (list.length === 0) return
  const { events, bytes } = encodeEvents(list)
  if (bytes > maxBytes) throw tooLarge(bytes, maxBytes)
  const query = `
    WITH added AS (INSERT INTO ${names.outbox} (bytes, data) VALUES ($1::text::bigint, $2::text) RETURNING true)
    SELECT pg_notify('${names.channel}', 'outbox') FROM added`
  try {
    await rowsOf(tx, query, [String(bytes), encodeBatch(events)])
  } catch (cause) {
    if ((cause as PostgresFault).code === '42P01') {
      const message = `There is no log ${names}: open it once with postgresLog. The transaction cannot commit.`
      throw new SpillwayError('LOG_UNUSABLE', message, { cause })
    }
    const message = `The events were not put into the outbox of ${names}: ${said(cause)}. The transaction cannot commit.`
    throw new SpillwayError('LOG_FAILED', message, { cause })
  }
}
