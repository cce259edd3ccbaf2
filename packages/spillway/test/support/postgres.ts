import { after } from 'node:test'
import { type PostgresServer, postgresProgram, startPostgres } from '@spillway/engines'
import postgres, { type Options, type Sql } from 'postgres'

/** Why tests with a PostgreSQL are skipped; `false` where they run. */
export const noPostgres: string | false = postgresProgram() ? false : 'no PostgreSQL on this machine'

let started: Promise<PostgresServer> | undefined

/** The PostgreSQL of a test file, which ends with it. */
export function sharedPostgres(): Promise<PostgresServer> {
  started ??= startPostgres().then((server) => {
    after(() => server.remove())
    return server
  })
  return started
}

/** A client that ends with the test. */
export function clientOf(
  t: { after(undo: () => Promise<void>): void },
  url: string,
  options: Options<Record<string, never>> = {},
): Sql {
  const sql = postgres(url, { max: 4, ...options })
  t.after(() => sql.end({ timeout: 1 }))
  return sql
}

let count = 0

/** A name that no log of this process has. */
export function newName(): string {
  return `log_${++count}`
}
