import { after, before, test } from 'node:test'
import type { PostgresServer } from '@spillway/engines'
import { startPostgres } from '@spillway/engines'
import postgres, { type Sql } from 'postgres'
import type { Clock } from '../../src/core/clock.ts'
import { type PostgresLog, postgresLog } from '../../src/log/postgres.ts'
import { type LogLimits, logSuite } from '../../src/testing/index.ts'
import { newName, noPostgres } from '../support/postgres.ts'

if (noPostgres) test('the log in PostgreSQL', { skip: noPostgres }, () => {})
else {
  let server: PostgresServer
  let sql: Sql
  before(async () => {
    server = await startPostgres()
    sql = postgres(server.url)
  })
  after(async () => {
    await sql.end({ timeout: 1 })
    await server.remove()
  })
  const limitsOf = new Map<string, LogLimits>()
  const openNamed = (name: string) => {
    const { clock, ...limits } = limitsOf.get(name) as LogLimits
    return postgresLog({ ...limits, clock: withPauses(clock), sql, name })
  }
  logSuite(
    'log in PostgreSQL',
    async (limits) => {
      const name = newName()
      limitsOf.set(name, limits)
      return openNamed(name)
    },
    {
      reopen: async (log) => {
        await log.close()
        return openNamed((log as PostgresLog).name)
      },
    },
  )
}

/** The suite lets minutes pass in an instant; the database runs beside it, and needs a moment for what they bring. */
function withPauses(clock: Clock): Clock {
  const never = new Int32Array(new SharedArrayBuffer(4))
  return {
    now: () => clock.now(),
    monotonic: () => clock.monotonic(),
    defer: (callback) => clock.defer(callback),
    after: (ms, callback) =>
      clock.after(ms, () => {
        Atomics.wait(never, 0, 0, 2)
        callback()
      }),
  }
}
