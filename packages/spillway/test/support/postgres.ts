import { after, type TestContext } from 'node:test'
import { type PostgresServer, postgresProgram, startPostgres } from '@spillway/engines'
import postgres, { type Sql } from 'postgres'
import type { StoredBatch } from '../../src/core/event.ts'
import { encodeEvents, type PendingBatch } from '../../src/core/event.ts'
import type { Log } from '../../src/core/log.ts'
import { type PostgresLog, type PostgresLogOptions, postgresLog } from '../../src/log/postgres.ts'

/** Why tests with a PostgreSQL are skipped; `false` where they run. */
export const noPostgres: string | false = postgresProgram() ? false : 'no PostgreSQL on this machine'

let started: Promise<PostgresServer> | undefined

/** The PostgreSQL of a test file, which ends with it. */
export function sharedPostgres(): Promise<PostgresServer> {
  started ??= startPostgres()
  return started
}

after(async () => (await started)?.remove())

/** A client of the shared server, or of the one at `url`, which ends with the test. */
export async function newClient(
  t: TestContext,
  { url, ...options }: postgres.Options<Record<string, postgres.PostgresType>> & { url?: string } = {},
): Promise<Sql> {
  const sql = postgres(url ?? (await sharedPostgres()).url, {
    max: 4,
    fetch_types: false,
    onnotice: () => {},
    ...options,
  }) as Sql
  t.after(() => sql.end({ timeout: 1 }))
  return sql
}

let count = 0

/** A name that no log of this process has. */
export function newName(): string {
  return `log_${++count}`
}

/** A log that is closed with the test, with a client of its own unless it is given one. */
export async function newLog(t: TestContext, options: Partial<PostgresLogOptions> = {}): Promise<PostgresLog> {
  const log = await postgresLog({ sql: await newClient(t), name: newName(), ...options })
  t.after(() => log.close())
  return log
}

export const batch = (key: string, index?: number): PendingBatch =>
  encodeEvents([{ topic: 'T', type: 't', key, payload: key }], index)

/** What is told from now on. */
export function follow(log: Log): StoredBatch[] {
  const told: StoredBatch[] = []
  log.follow((batch) => told.push(batch))
  return told
}

export const keysOf = (batches: readonly StoredBatch[]): string[] =>
  batches.map(({ index, events }) => `${index} ${events.map(({ key }) => key).join(' ')}`)

/** All that is kept, in pages. Fails where anything is told as gone. */
export async function readAll(log: Log, after = 0): Promise<StoredBatch[]> {
  const all: StoredBatch[] = []
  for (let last = after; ; last = all.at(-1)?.index ?? after) {
    const { floor, lost = 0, batches } = await log.read(last, 256)
    if (Math.max(floor, lost) > last) throw new Error(`gone after ${last}: floor ${floor}, lost ${lost}`)
    if (batches.length === 0) return all
    all.push(...batches)
  }
}
