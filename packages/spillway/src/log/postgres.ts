import type { Clock } from '../core/clock.ts'
import { integerOption, wrongOption } from '../core/errors.ts'
import type { EventInput } from '../core/event.ts'
import type { Log } from '../core/log.ts'
import type { PostgresClient, PostgresTransaction } from './postgres/client.ts'
import type { Durability } from './postgres/database.ts'
import { importParts } from './postgres/import.ts'
import { DatabaseLog } from './postgres/log.ts'
import { openTables } from './postgres/open.ts'
import { writeInto } from './postgres/outbox.ts'
import { Names } from './postgres/tables.ts'
import type { FilePart } from './sqlite.ts'

export type { PostgresClient, PostgresQuery, PostgresTransaction } from './postgres/client.ts'
export type { FilePart, FileRange } from './sqlite.ts'

/** Which log of a database. */
export interface PostgresLogName {
  /** 1 to 40 lower case letters, digits and `_`, a letter first: the tables' names begin with it. Default `spillway`. */
  name?: string | undefined
  /** The schema of its tables, which must exist. Default `public`, whatever the `search_path` says. */
  schema?: string | undefined
}

export interface PostgresLogOptions extends PostgresLogName {
  /**
   * A client of the package `postgres`, which its owner ends after the log was closed. Best is one of the log's own, made with
   * `fetch_types: false`: without that, `postgres` 3.4.9 ends the process if a connection is lost while it opens.
   */
  sql: PostgresClient
  /**
   * What an acknowledged append survives. `power`, the default: a power cut; the database must have `fsync` and
   * `full_page_writes` on. `machine`: the loss of the database's machine as well; `synchronous_standby_names` must name a
   * standby. `process`: the end of any process, that of the database too, whatever its settings. No setting of a session or
   * role makes an append less durable than that.
   */
  durability?: Durability | undefined
  /** Batches that are kept; up to a 64th more may be there. Default: no limit. All servers of a log should have the same limits. */
  capacity?: number | undefined
  /** Bytes of names and payloads that are kept; up to a 64th more may be there. 0: no limit. Default 1 GiB. */
  maxBytes?: number | undefined
  /** Milliseconds that batches are kept. Default: no limit. */
  maxAge?: number | undefined
  /** How long an append, a read or the opening waits for a database that does not answer, in milliseconds. Default 30 000. */
  patience?: number | undefined
  /** Whose time batches get, and ages are measured by. Default: that of the database, which all servers share. */
  clock?: Clock | undefined
}

/** A log in a PostgreSQL database, which any number of servers may have open. */
export interface PostgresLog extends Log {
  readonly name: string
  readonly schema: string
  /** See {@link publishIn}. Rejects with `TOO_LARGE` as well. */
  publishIn(tx: PostgresTransaction, events: EventInput | readonly EventInput[]): Promise<void>
}

const defaultMaxBytes = 2 ** 30
const defaultPatience = 30_000

/**
 * Opens a log in a PostgreSQL database, or makes its tables and functions.
 *
 * Servers  Any number may have it open. All see the same batches under the same indexes, so that a reader may leave one
 *          server and resume on another.
 * Order    Appends that come while a statement runs share the next one. Followers are told, and `append` resolves, once it
 *          was committed. Indexes become visible in their order, without holes.
 * Away     An append whose answer was lost is settled when the database is back: it is stored once. If that takes longer
 *          than `patience` it rejects with `LOG_FAILED`, which says whether it may have been stored.
 * Losses   If the history was dropped, replaced or set back to an older state, nothing is stored: appends reject with
 *          `LOG_FAILED`, brokers end with `SHUTDOWN`, and readers of another server are told of the new epoch.
 *
 * Rejects with `CONFIG` that names the option, or with `LOG_UNUSABLE`: no database, no rights, a standby, tables of somebody
 * else or of a newer version, or a level of durability that the database does not give; the message names the setting.
 */
export async function postgresLog(options: PostgresLogOptions): Promise<PostgresLog> {
  const { sql, durability = 'power', clock } = options
  checkClient(sql)
  const names = namesOf(options)
  if (!['process', 'power', 'machine'].includes(durability)) {
    throw wrongOption('durability', '"process", "power" or "machine"', durability)
  }
  const limits = {
    capacity: integerOption('capacity', options.capacity ?? 0, 0) || Number.MAX_SAFE_INTEGER,
    maxBytes: integerOption('maxBytes', options.maxBytes ?? defaultMaxBytes, 0) || Number.MAX_SAFE_INTEGER,
    maxAge: integerOption('maxAge', options.maxAge ?? 0, 0) || Number.MAX_SAFE_INTEGER,
  }
  const patience = integerOption('patience', options.patience ?? defaultPatience, 1, 2 ** 31 - 1)
  const standing = await openTables(sql, names, durability, patience)
  const opened = { client: sql, names, epoch: standing.epoch, durability, limits, clock }
  return new DatabaseLog(opened, standing, patience)
}

/**
 * Publishes events in a transaction of the application: they are published exactly if it commits. An array is one batch. Any
 * program can do this, one without a Spillway server too: `tx` is what `sql.begin` gives, and the log must have been opened
 * once. Resolves when they are in the outbox, not when they are published: a server that has the log open moves them into it
 * once the transaction has committed, and gives them their indexes then. So it holds up nobody, however long `tx` stays open.
 *
 * Order    Batches of one transaction keep theirs. So do those of two transactions of which the second began to publish after
 *          the first had committed. Between transactions that overlap, and beside `append`, there is none.
 *
 * Rejects with `INVALID`, and nothing was put there; with `LOG_UNUSABLE` if there is no such log, `LOG_FAILED` for what the
 * database refused. After those two PostgreSQL lets the transaction only roll back.
 */
export async function publishIn(
  tx: PostgresTransaction,
  events: EventInput | readonly EventInput[],
  log: PostgresLogName = {},
): Promise<void> {
  await writeInto(tx, namesOf(log), events, Number.POSITIVE_INFINITY)
}

/**
 * Makes a log of parts with ascending indexes, such as those of another log; a thousand batches make a good part. Their
 * indexes and times are kept, and readers are told what is missing. Resolves with the number of batches. The log has an epoch
 * of its own, and is there whole or not at all. Rejects with `CONFIG`; `LOG_UNUSABLE` if there is one already or the database
 * does not let it be made; `INVALID` for a time more than a day ahead of the clock, `INDEX_ORDER` for an index that is not
 * above the one before; with what `parts` throws.
 */
export async function importPostgres(
  options: Pick<PostgresLogOptions, 'sql' | 'name' | 'schema'>,
  parts: AsyncIterable<FilePart> | Iterable<FilePart>,
): Promise<number> {
  checkClient(options.sql)
  return importParts(options.sql, namesOf(options), parts)
}

function checkClient(sql: unknown): void {
  const { unsafe, begin, listen } = (sql ?? {}) as Record<string, unknown>
  if ([unsafe, begin, listen].every((method) => typeof method === 'function')) return
  throw wrongOption('sql', 'a client of the package postgres', sql)
}

/** Throws `CONFIG`. */
function namesOf({ name = 'spillway', schema = 'public' }: PostgresLogName): Names {
  if (typeof name !== 'string' || !/^[a-z][a-z0-9_]{0,39}$/.test(name)) {
    throw wrongOption('name', '1 to 40 lower case letters, digits and "_", a letter first', name)
  }
  if (typeof schema !== 'string' || !/^[^\0"]{1,63}$/.test(schema)) {
    throw wrongOption('schema', 'the name of a schema', schema)
  }
  return new Names(schema, name)
}
