import assert from 'node:assert/strict'
import { rmSync, statfsSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { type Broker, createBroker } from '../../src/core/broker.ts'
import { SpillwayError } from '../../src/core/errors.ts'
import { sqliteLog } from '../../src/log/sqlite.ts'
import { noSqlite } from '../support/log-files.ts'
import { noDisks, smallDisk } from '../support/small-disk.ts'
import { withCode } from '../support/waiting.ts'

const skip = noSqlite || noDisks

const payload = (n: number) => ({ n, padding: 'x'.repeat(8000) })

/** Publishes four at a time until one is refused. Gives the numbers that were stored, by index, and the errors. */
async function fill(broker: Broker, stored: Map<number, number>, first: number): Promise<SpillwayError[]> {
  const errors: SpillwayError[] = []
  for (let n = first; errors.length === 0; n += 4) {
    await Promise.all(
      [n, n + 1, n + 2, n + 3].map((m) =>
        broker.publish({ topic: 'T', type: 't', payload: payload(m) }).then(
          (index) => stored.set(index, m),
          (error: SpillwayError) => errors.push(error),
        ),
      ),
    )
    assert.ok(n < first + 10_000, 'the disk fills up')
  }
  return errors
}

/** Reads up to the newest index, and compares with what was stored. */
async function readAll(broker: Broker, stored: ReadonlyMap<number, number>): Promise<void> {
  const reader = broker.subscribe({ from: 'earliest' })
  for (let index = 1; index <= stored.size; index++) {
    const batch = await reader.next()
    assert.deepEqual([batch.index, batch.events[0]?.payload], [index, payload(stored.get(index) as number)])
  }
  assert.equal(reader.take(), undefined)
  reader.close()
}

for (const durability of ['power', 'process'] as const) {
  test(`D3: on a full disk (${durability}) publishing fails and nothing else does; with room it goes on`, {
    skip,
  }, async (t) => {
    const disk = await smallDisk(t, 2)
    if (!disk) return
    const ballast = path.join(disk.folder, 'ballast')
    writeFileSync(ballast, Buffer.alloc(512 * 1024))
    const log = await sqliteLog({ path: disk.file, durability })
    t.after(() => log.close())
    const broker = createBroker({ log, capacity: 4 })
    const live = broker.subscribe()
    const heard: number[] = []
    const hearing = (async () => {
      for await (const { index } of live) heard.push(index)
    })().catch((error: unknown) => error)
    const stored = new Map<number, number>()
    // More than once: what was tried in vain must leave nothing behind.
    for (let round = 0; round < 3; round++) {
      for (const error of await fill(broker, stored, round * 100_000)) {
        withCode('LOG_FAILED', /no room/)(error)
        assert.ok(error.message.includes(disk.file))
      }
      assert.deepEqual(
        [...stored.keys()].sort((a, b) => a - b),
        Array.from(stored, (_, n) => n + 1),
      )
      assert.equal(log.last, stored.size)
      await readAll(broker, stored)
    }
    assert.ok(stored.size > 50, `${stored.size} found room`)
    rmSync(ballast)
    for (let n = 0; n < 10; n++) {
      const index = await broker.publish({ topic: 'T', type: 't', payload: payload(1_000_000 + n) })
      assert.equal(index, stored.size + 1)
      stored.set(index, 1_000_000 + n)
    }
    await readAll(broker, stored)
    await broker.flushed()
    assert.deepEqual(
      heard,
      [...stored.keys()].sort((a, b) => a - b),
    )
    const { epoch } = log
    await broker.close()
    withCode('SHUTDOWN')(await hearing)
    const again = await sqliteLog({ path: disk.file, durability })
    t.after(() => again.close())
    assert.deepEqual([again.epoch, again.last, again.lost], [epoch, stored.size, undefined])
    await readAll(createBroker({ log: again }), stored)
  })
}

test('D3: a log that was filled up is opened, read and closed without room', { skip }, async (t) => {
  const disk = await smallDisk(t, 2)
  if (!disk) return
  const log = await sqliteLog({ path: disk.file })
  const broker = createBroker({ log })
  const stored = new Map<number, number>()
  await fill(broker, stored, 0)
  // To the last byte, and no page is left to move anything into.
  const { bavail, bsize } = statfsSync(disk.folder)
  try {
    writeFileSync(path.join(disk.folder, 'ballast'), Buffer.alloc(bavail * bsize))
  } catch {
    // Full is full.
  }
  await broker.close()
  const again = await sqliteLog({ path: disk.file })
  t.after(() => again.close())
  assert.deepEqual([again.epoch, again.last, again.lost], [log.epoch, stored.size, undefined])
  const second = createBroker({ log: again, capacity: 4 })
  await readAll(second, stored)
  const failed = await second.publish({ topic: 'T', type: 't', payload: 'x'.repeat(500_000) }).catch((error) => error)
  withCode('LOG_FAILED', /no room/)(failed)
  await readAll(second, stored)
})

test('D3: making a log on a full disk is refused, with the path and the reason', { skip }, async (t) => {
  const disk = await smallDisk(t, 1)
  if (!disk) return
  try {
    writeFileSync(path.join(disk.folder, 'ballast'), Buffer.alloc(2 ** 20))
  } catch {
    // Full is full.
  }
  const error = await sqliteLog({ path: disk.file }).catch((error) => error)
  assert.ok(error instanceof SpillwayError, String(error))
  assert.equal(error.code, 'LOG_UNUSABLE')
  assert.match(error.message, /full|space|room/)
  assert.ok(error.message.includes(disk.file))
  rmSync(path.join(disk.folder, 'ballast'))
  const log = await sqliteLog({ path: disk.file })
  t.after(() => log.close())
  assert.equal(log.last, 0)
})
