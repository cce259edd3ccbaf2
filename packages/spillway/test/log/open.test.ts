import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { type TestContext, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { encodeEvents } from '../../src/core/event.ts'
import { openSqliteFile, type SqliteLogOptions, sqliteLog } from '../../src/log/sqlite.ts'
import { ManualClock } from '../support/clock.ts'
import { until } from '../support/http.ts'
import { logPath, noSqlite } from '../support/log-files.ts'
import type { LogWriterOptions } from '../support/log-writer.ts'
import { type Running, start } from '../support/programs.ts'
import { noDisks, smallDisk } from '../support/small-disk.ts'
import { withCode } from '../support/waiting.ts'

const skip = noSqlite
const batch = (payload: unknown) => encodeEvents([{ topic: 'T', type: 't', payload }])

/** Another process that holds the log open. */
async function holder(t: TestContext, file: string): Promise<Running> {
  const options: LogWriterOptions = { path: file, publishers: 0, first: 1, repeat: [] }
  const program = fileURLToPath(new URL('../support/log-writer.js', import.meta.url))
  const running = start(t, process.execPath, [program, JSON.stringify(options)])
  assert.match((await running.nextLine()) ?? running.complaints(), /^opened/)
  return running
}

/** What a folder holds: names, times and, unless this process has a log open there, bytes: to read a file lets go of its locks. */
function contents(folder: string, { withBytes = true } = {}): Record<string, string> {
  const files = readdirSync(folder).filter((name) => statSync(path.join(folder, name)).isFile())
  return Object.fromEntries(
    files.map((name) => {
      const file = path.join(folder, name)
      const { mtimeMs, size } = statSync(file)
      const hash = withBytes ? createHash('sha256').update(readFileSync(file)).digest('hex') : ''
      return [name, `${size} bytes ${hash} ${mtimeMs}`]
    }),
  )
}

/** Opening is refused with the path and a reason, and leaves the folder as it was. */
async function refused(file: string, reason: RegExp, look: { withBytes?: boolean } = {}): Promise<void> {
  const folder = path.dirname(file)
  const isFolder = existsSync(folder) && statSync(folder).isDirectory()
  if (existsSync(file) && statSync(file).isFile()) utimesSync(file, 1_000_000, 1_000_000)
  const before = isFolder && contents(folder, look)
  for (let n = 0; n < 2; n++) {
    const error = await sqliteLog({ path: file }).then(
      () => assert.fail('it was opened'),
      (error: unknown) => error,
    )
    withCode('LOG_UNUSABLE', reason)(error)
    assert.ok((error as Error).message.includes(file), `the path is in: ${(error as Error).message}`)
    assert.deepEqual(isFolder && contents(folder, look), before)
  }
}

async function sqlite(file: string, ...statements: string[]): Promise<void> {
  const { DatabaseSync } = await import('node:sqlite')
  const db = new DatabaseSync(file)
  for (const statement of statements) db.exec(statement)
  db.close()
}

test('a path that leads nowhere is refused', { skip }, async (t) => {
  const folder = path.dirname(await logPath(t))
  writeFileSync(path.join(folder, 'plain'), 'text')
  await refused(path.join(folder, 'missing', 'log.db'), /unable to open|no such|not there|does not exist/i)
  await refused(path.join(folder, 'plain', 'log.db'), /unable to open|not a directory/i)
})

test('a path that is a folder is refused', { skip }, async (t) => {
  await refused(path.dirname(await logPath(t)), /directory|unable|not a/i)
})

test('a folder that cannot be written is refused, with a log in it or without', {
  skip: skip || noDisks,
}, async (t) => {
  const disk = await smallDisk(t, 4)
  if (!disk) return
  const { folder, file } = disk
  const log = await sqliteLog({ path: file })
  await log.append([batch('a')])
  await log.close()
  utimesSync(file, 1_000_000, 1_000_000)
  execFileSync('mount', ['-o', 'remount,ro', folder])
  const before = contents(folder)
  for (const name of ['log.db', 'other.db']) {
    const error = await sqliteLog({ path: path.join(folder, name) }).catch((error) => error)
    withCode('LOG_UNUSABLE', /read-?only|readonly|unable to open/i)(error)
    assert.ok(error.message.includes(path.join(folder, name)), error.message)
    assert.deepEqual(contents(folder), before)
  }
  execFileSync('mount', ['-o', 'remount,rw', folder])
  const again = await sqliteLog({ path: file })
  assert.equal(again.last, 1)
  await again.close()
})

test('a file that is not a log is refused and not touched', { skip }, async (t) => {
  const file = await logPath(t)
  for (const text of ['', 'x', 'Dear diary,\n'.repeat(1000), 'SQLite format 3\0']) {
    writeFileSync(file, text)
    await refused(file, /not a log/)
  }
})

test('a database of another program is refused and not touched', { skip }, async (t) => {
  const plain = await logPath(t)
  await sqlite(plain, 'CREATE TABLE t (a)', 'INSERT INTO t VALUES (1)')
  await refused(plain, /not a log/)
  const wal = await logPath(t)
  await sqlite(wal, 'PRAGMA journal_mode = WAL', 'PRAGMA application_id = 7', 'CREATE TABLE batches (a)')
  await refused(wal, /not a log/)
})

test('a log of a newer format is refused and not touched', { skip }, async (t) => {
  const file = await logPath(t)
  const log = await sqliteLog({ path: file })
  await log.append([batch('a')])
  await log.close()
  await sqlite(file, 'PRAGMA user_version = 2')
  await refused(file, /format 2.*newer/s)
  await sqlite(file, 'PRAGMA user_version = 1')
  const again = await sqliteLog({ path: file })
  assert.equal(again.last, 1)
  await again.close()
})

test('a log that is in use is refused, by this process and by another, and goes on undisturbed', {
  skip,
}, async (t) => {
  const file = await logPath(t)
  const log = await sqliteLog({ path: file })
  await log.append([batch('a')])
  await refused(file, /in use/, { withBytes: false })
  await assert.rejects(holder(t, file), /LOG_UNUSABLE|in use/)
  // Refusing others did not let go of the lock.
  await refused(file, /in use/, { withBytes: false })
  assert.deepEqual((await log.append([batch('b')])).indexes, [2])
  await log.close()
  const other = await holder(t, file)
  await refused(file, /in use/)
  await refused(file, /in use/)
  other.child.kill('SIGKILL')
  await other.exit
  const again = await sqliteLog({ path: file })
  assert.deepEqual([again.epoch, again.last, again.lost], [log.epoch, 2, undefined])
  await again.close()
})

test('the lock is free after its holder was killed, each time', { skip }, async (t) => {
  const file = await logPath(t)
  for (let n = 0; n < 5; n++) {
    const other = await holder(t, file)
    other.child.kill('SIGKILL')
    await other.exit
    const log = await sqliteLog({ path: file })
    assert.deepEqual((await log.append([batch(n)])).indexes, [n + 1])
    await log.close()
  }
})

test('an option that makes no sense is named', { skip }, async (t) => {
  const file = await logPath(t)
  const numbers = [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, '5', null, 2 ** 53]
  const wrong: [string, unknown[]][] = [
    ['path', ['', undefined, null, 5, {}]],
    ['durability', ['', 'disk', 1, true]],
    ['capacity', numbers],
    ['maxBytes', numbers],
    ['maxAge', numbers],
  ]
  for (const [option, values] of wrong) {
    for (const value of values) {
      // `null` stands for nothing where there is a default.
      if (value === null && option !== 'path') continue
      const options = { path: file, [option]: value } as unknown as SqliteLogOptions
      await assert.rejects(
        sqliteLog(options),
        withCode('CONFIG', new RegExp(`^${option} must be`)),
        `${option} ${value}`,
      )
    }
  }
  assert.deepEqual(readdirSync(path.dirname(file)), [])
})

const minute = 60_000

/** Lets time pass in steps, so that each look at the ages is finished before the next. */
async function pass(clock: ManualClock, minutes: number): Promise<void> {
  for (let n = 0; n < 2 * minutes; n++) {
    clock.advance(minute / 2)
    await until(() => clock.timers > 0, 'the next look at the ages')
  }
}

test('a clock that was set back by an hour changes neither the order nor what is kept', { skip }, async (t) => {
  const { Reader } = await import('../../src/log/sqlite/reader.ts')
  const file = await logPath(t)
  const began = 1_700_000_000_000
  const open = async (wall: number) => {
    const clock = new ManualClock()
    clock.wall = wall
    return { clock, log: await sqliteLog({ path: file, maxAge: 10 * minute, clock }) }
  }
  const first = await open(began)
  await first.log.append([batch(1)])
  await pass(first.clock, 5)
  await first.log.append([batch(2)])
  // Set back while it is open: it does not notice.
  first.clock.wall -= 60 * minute
  await first.log.append([batch(3)])
  await first.log.close()

  const { clock, log } = await open(began - 60 * minute)
  await pass(clock, 4)
  await log.append([batch(4)])
  const reader = new Reader(file)
  const { rows } = reader.read(0, 10, 2 ** 20, log.last)
  reader.close()
  assert.deepEqual(
    rows.map(({ idx, time }) => [idx, (time - began) / minute]),
    [
      [1, 0],
      [2, 5],
      [3, 5],
      [4, 9],
    ],
  )
  assert.equal(await log.locate({ since: began + 5 * minute }), 1)
  assert.equal(log.floor, 0, 'nothing goes early')
  await pass(clock, 2)
  assert.equal(log.floor, 1, 'the first goes, 11 minutes old')
  await pass(clock, 2)
  assert.deepEqual((await log.append([batch(5)])).indexes, [5])
  assert.equal(log.floor, 1)
  await pass(clock, 3)
  assert.equal(log.floor, 3, 'the next two go, 11 minutes old')
  const { floor, batches } = await log.read(0, 10)
  assert.deepEqual([floor, batches.map(({ index }) => index)], [3, [4, 5]])
  await log.close()
})

test('a log opens and closes while others look at its file, and neither is in the way of the other', {
  skip,
}, async (t) => {
  const file = await logPath(t)
  await (await sqliteLog({ path: file })).close()
  let looking = true
  let looks = 0
  const looker = async () => {
    while (looking) {
      const opened = await openSqliteFile(file)
      for (const part of opened.parts()) assert.ok('batches' in part, JSON.stringify(part))
      opened.close()
      looks++
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  const lookers = [looker(), looker()]
  for (let n = 1; n <= 40; n++) {
    const log = await sqliteLog({ path: file })
    assert.deepEqual((await log.append([batch(n)])).indexes, [n])
    await log.close()
  }
  looking = false
  await Promise.all(lookers)
  assert.ok(looks > 40)
})

test('what a killed import left is taken away by whoever opens the log', { skip }, async (t) => {
  const file = await logPath(t)
  for (const end of ['', '-wal', '-shm', '-lock', '-mark']) writeFileSync(`${file}-import${end}`, 'left')
  const log = await sqliteLog({ path: file })
  t.after(() => log.close())
  assert.deepEqual(
    readdirSync(path.dirname(file)).filter((name) => name.includes('import')),
    [],
  )
})

test('a log can be used by a program that is given as text', { skip }, () => {
  const module = new URL('../../src/log/sqlite.js', import.meta.url)
  const options = JSON.stringify({ path: '/nowhere/at/all.db' })
  const program = `import { sqliteLog } from '${module}'; sqliteLog(${options}).catch(({ code }) => console.log(code))`
  const flags = ['--input-type=module', '-e']
  assert.equal(execFileSync(process.execPath, [...flags, program], { encoding: 'utf8' }), 'LOG_UNUSABLE\n')
})
