import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { statSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { freePort, postgresProgram, startPostgres } from '@spillway/engines'
import { postgresLog } from '../../src/log/postgres.ts'
import { until } from '../support/http.ts'
import { batch, keysOf, newClient, newName, noPostgres, readAll } from '../support/postgres.ts'
import { withCode } from '../support/waiting.ts'

test('with a standby, "machine" survives the loss of the primary; without it, nobody is told that it was stored', {
  skip: noPostgres,
}, async (t) => {
  const primary = await startPostgres()
  t.after(() => primary.remove())
  const sql = await newClient(t, { url: primary.url, fetch_types: false })
  const program = postgresProgram() as string
  const { uid, gid } = statSync(path.join(primary.folder, 'data'))
  const user = process.getuid?.() === 0 ? { uid, gid } : {}
  const folder = path.join(primary.folder, 'standby')
  const backup = ['-D', folder, '-R', '-X', 'stream', '-c', 'fast', '--no-sync', '-d', primary.url]
  execFileSync(path.join(path.dirname(program), 'pg_basebackup'), backup, {
    ...user,
    cwd: primary.folder,
    stdio: 'pipe',
  })
  const port = await freePort()
  const settings = [`port=${port}`, 'listen_addresses=127.0.0.1', `unix_socket_directories=${folder}`]
  const run = ['-D', folder, ...settings.flatMap((setting) => ['-c', setting])]
  const standby = spawn(program, run, { ...user, cwd: folder, stdio: 'ignore' })
  const gone = once(standby, 'exit')
  t.after(() => standby.kill('SIGKILL') && gone)
  await sql`alter system set synchronous_standby_names = '*'`
  await sql`select pg_reload_conf()`
  const isSynchronous = async () => (await sql`select from pg_stat_replication where sync_state = 'sync'`).length > 0
  await until(isSynchronous, 'the standby follows')
  const name = newName()
  const options = { name, durability: 'machine', patience: 1000 } as const
  const log = await postgresLog({ sql, ...options })
  t.after(() => log.close())
  for (let n = 1; n <= 20; n++) await log.append([batch(`${n}`)])

  const url = primary.url.replace(/:\d+\/postgres/, `:${port}/postgres`)
  const other = await newClient(t, { url })
  await assert.rejects(postgresLog({ sql: other, ...options }), withCode('LOG_UNUSABLE', /is a standby/))

  const [sender] = await sql`select pid from pg_stat_replication`
  process.kill(sender?.pid, 'SIGSTOP')
  await assert.rejects(log.append([batch('unconfirmed')], { key: 'k' }), withCode('LOG_FAILED', /not known/))
  assert.equal(log.last, 20)
  process.kill(sender?.pid, 'SIGCONT')
  assert.deepEqual((await log.append([batch('unconfirmed')], { key: 'k' })).indexes, [21])

  await primary.stop('SIGKILL')
  await other`select pg_promote()`
  await assert.rejects(postgresLog({ sql: other, ...options }), withCode('LOG_UNUSABLE', /synchronous_standby_names/))
  const promoted = await postgresLog({ sql: other, name })
  t.after(() => promoted.close())
  assert.equal(promoted.epoch, log.epoch)
  const expected = Array.from({ length: 21 }, (_, n) => `${n + 1} ${n < 20 ? n + 1 : 'unconfirmed'}`)
  assert.deepEqual(keysOf(await readAll(promoted)), expected)
})
