import { test } from 'node:test'
import { type SqliteLog, type SqliteLogOptions, sqliteLog } from '../../src/log/sqlite.ts'
import { type LogLimits, logSuite } from '../../src/testing/index.ts'
import { logPath, noSqlite } from '../support/log-files.ts'

if (noSqlite) test('the log on disk', { skip: noSqlite }, () => {})
else {
  const limitsOf = new Map<string, LogLimits>()
  for (const durability of ['power', 'process'] as const) {
    const open = (options: Omit<SqliteLogOptions, 'durability'>) => sqliteLog({ ...options, durability })
    logSuite(
      `log on disk, ${durability}`,
      async (limits, t) => {
        const file = await logPath(t)
        limitsOf.set(file, limits)
        return open({ ...limits, path: file })
      },
      {
        reopen: async (log) => {
          await log.close()
          const { path: file } = log as SqliteLog
          return open({ ...limitsOf.get(file), path: file })
        },
      },
    )
  }
}
