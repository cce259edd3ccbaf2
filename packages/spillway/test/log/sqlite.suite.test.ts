import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { test } from 'node:test'
import { type SqliteLog, type SqliteLogOptions, sqliteLog } from '../../src/log/sqlite.ts'
import { type LogLimits, logSuite } from '../../src/testing/index.ts'
import { hasSqlite } from '../support/sqlite.ts'

if (!hasSqlite) test('the log on disk', { skip: 'this Node has no SQLite' }, () => {})
else {
  const limitsOf = new Map<string, LogLimits>()
  for (const durability of ['power', 'process'] as const) {
    const open = (options: Omit<SqliteLogOptions, 'durability'>) => sqliteLog({ ...options, durability })
    logSuite(
      `log on disk, ${durability}`,
      async (limits, t) => {
        const folder = await mkdtemp(path.join(tmpdir(), 'spillway-'))
        t.after(() => rm(folder, { recursive: true }))
        const file = path.join(folder, 'log.db')
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
