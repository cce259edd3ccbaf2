import { newEpoch } from '../../core/cursor.ts'
import { SpillwayError } from '../../core/errors.ts'
import {
  type PostgresClient,
  type PostgresFault,
  type PostgresTransaction,
  rowsOf,
  said,
  unusable,
  within,
} from './client.ts'
import type { Durability, Standing } from './database.ts'
import { formatVersion, type Names, tablesOf } from './tables.ts'

/**
 * Finds the log, or makes it. Rejects with `LOG_UNUSABLE`, also if the database does not answer for `patience` milliseconds;
 * what is there is not touched then.
 */
export async function openTables(
  client: PostgresClient,
  names: Names,
  durability: Durability,
  patience: number,
): Promise<Standing> {
  try {
    await within(patience, checkServer(client, durability))
    if (!(await isThere(client, names))) await begin(client, async (tx) => void (await make(tx, names)))
    await rowsOf(client, `DELETE FROM ${names.answers} WHERE removed < now() - interval '1 day'`)
    return await standing(client, names)
  } catch (error) {
    throw unusable(error, `Cannot open the log ${names}`)
  }
}

/**
 * Makes the log and fills it, in one transaction. Rejects with `LOG_UNUSABLE` if there is one, or with what `fill` throws.
 * Resolves with what `fill` gives.
 */
export async function makeAndFill<T>(
  client: PostgresClient,
  names: Names,
  fill: (tx: PostgresTransaction) => Promise<T>,
): Promise<T> {
  let filled: T | undefined
  await begin(client, async (tx) => {
    try {
      await checkServer(tx, 'process')
      if (!(await make(tx, names))) throw new SpillwayError('LOG_UNUSABLE', `There is a log ${names} already.`)
    } catch (error) {
      throw unusable(error, `Cannot make the log ${names}`)
    }
    filled = await fill(tx)
  })
  return filled as T
}

function begin(client: PostgresClient, run: (tx: PostgresTransaction) => Promise<unknown>): PromiseLike<unknown> {
  return client.begin('isolation level read committed read write', run)
}

/** Whether it was not there. Many servers may start at once: the first one makes it, and the others wait until it has. */
async function make(tx: PostgresTransaction, names: Names): Promise<boolean> {
  await rowsOf(tx, 'SELECT pg_advisory_xact_lock(hashtextextended($1, 0))::text', [`spillway open ${names}`])
  if (await isThere(tx, names)) return false
  try {
    await tx.unsafe(tablesOf(names)).values()
    await rowsOf(tx, `INSERT INTO ${names.state} (spillway_format, epoch) VALUES (${formatVersion}, $1)`, [
      newEpoch(Date.now()),
    ])
    return true
  } catch (error) {
    const { code } = error as PostgresFault
    if (code === '42P07' || code === '42710' || code === '42723') {
      throw new SpillwayError('LOG_UNUSABLE', `${said(error)}, and it is not a log's: choose another name or schema.`)
    }
    throw error
  }
}

/** Whether there is a log. Throws `LOG_UNUSABLE` for one of a newer format, and for tables that are none. */
async function isThere(client: PostgresTransaction, names: Names): Promise<boolean> {
  const [found] = await rowsOf(
    client,
    `SELECT to_regclass($1)::text, (SELECT count(*) FROM pg_attribute
      WHERE attrelid = to_regclass($1) AND attname = 'spillway_format')::text,
      (SELECT count(*) FROM pg_namespace WHERE nspname = $2)::text`,
    [names.state, names.schema],
  )
  const [table, marks, schemas] = found ?? []
  if (schemas === '0') throw new SpillwayError('LOG_UNUSABLE', `There is no schema ${names.schema}. Create it.`)
  if (table === null) return false
  if (marks === '0') {
    throw new SpillwayError('LOG_UNUSABLE', `The table ${table} is not that of a log: choose another name or schema.`)
  }
  const [row] = await rowsOf(client, `SELECT spillway_format::text FROM ${names.state}`)
  const format = Number(row?.[0] ?? 0)
  if (format === formatVersion) return true
  if (format > formatVersion) {
    const message = `The log ${names} has format ${format}, this Spillway knows up to ${formatVersion}. Use a newer one.`
    throw new SpillwayError('LOG_UNUSABLE', message)
  }
  throw new SpillwayError(
    'LOG_UNUSABLE',
    `The table ${table} has no state in it. Restore it, or drop the log's tables.`,
  )
}

async function standing(client: PostgresTransaction, names: Names): Promise<Standing> {
  const [row] = await rowsOf(
    client,
    `SELECT epoch, floor::text, greatest(floor, last, (SELECT max(idx) FROM ${names.batches}))::text, changes::text
      FROM ${names.state}`,
  )
  const [epoch, floor, last, changes] = row ?? []
  return { epoch: epoch as string, floor: Number(floor), last: Number(last), changes: Number(changes) }
}

/** Throws `LOG_UNUSABLE` that names the setting of the database which has to change. */
async function checkServer(client: PostgresTransaction, durability: Durability): Promise<void> {
  const settings = [
    'server_encoding',
    'transaction_read_only',
    'fsync',
    'full_page_writes',
    'synchronous_standby_names',
  ]
  const [row = []] = await rowsOf(
    client,
    `SELECT pg_is_in_recovery()::text, ${settings.map((name) => `current_setting('${name}')`).join(', ')}`,
  )
  const [isStandby, encoding, readOnly, ...rest] = row
  if (isStandby === 'true') throw refused('The database is a standby, which can only be read. Connect to the primary.')
  if (readOnly === 'on') throw refused('The session is read-only. Set default_transaction_read_only to off.')
  if (encoding !== 'UTF8') throw refused(`The database must have the encoding UTF8, it has ${encoding}.`)
  const [fsync, fullPages, standbys] = rest
  const wanted = `durability is ${JSON.stringify(durability)}`
  if (durability === 'process') return
  if (fsync !== 'on') throw refused(`${wanted}, which needs fsync = on in the database; it is ${fsync}.`)
  if (fullPages !== 'on') throw refused(`${wanted}, which needs full_page_writes = on in the database.`)
  if (durability === 'machine' && standbys === '') {
    throw refused(`${wanted}, which needs synchronous_standby_names in the database; it names no standby.`)
  }
}

function refused(message: string): SpillwayError {
  return new SpillwayError('LOG_UNUSABLE', message)
}
