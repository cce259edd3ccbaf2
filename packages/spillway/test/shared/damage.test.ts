import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createBroker } from '../../src/core/broker.ts'
import { SpillwayError } from '../../src/core/errors.ts'
import {
  createSharedBuffer,
  openSharedBuffer,
  recoverSharedBuffer,
  type SharedHandle,
  type SharedSubscription,
} from '../../src/shared/index.ts'
import { cell, entryBytes, openRing } from '../../src/shared/layout.ts'
import { event } from '../support/brokers.ts'
import { type Random, seededRandom } from '../support/random.ts'
import { turn } from '../support/waiting.ts'

/** A buffer that has gone round at least once, and a reader that stands at its beginning. */
async function filled(random: Random) {
  const broker = createBroker()
  const buffer = createSharedBuffer({ bytes: 2 ** 16, items: random.pick([0, 50]) })
  const stop = buffer.feed(broker)
  await turn()
  const reader = openSharedBuffer(buffer.handle).subscribe({ onLag: 'skip' })
  for (let n = 0; n < 300; n++) {
    await broker.publish({ ...event(`k${n}`), payload: 'x'.repeat(random.below(900)) })
  }
  stop()
  await broker.close()
  return { handle: buffer.handle, reader }
}

/** Writes over some words, most often those that everything hangs on. */
function scribble(random: Random, handle: SharedHandle): void {
  const words = new Int32Array(handle.memory)
  const { data, table, pages } = openRing(handle).layout
  const places = [
    () => random.pick([cell.tail, cell.intent, cell.epoch]),
    () => random.pick([cell.newest, cell.newest + 1, cell.newest + 2, cell.origin, cell.wait, cell.history]),
    () => table / 4 + random.below((pages * entryBytes) / 4),
    () => data / 4 + random.below(words.length - data / 4),
  ]
  const place = random.pick(places)
  for (let n = random.below(3); n >= 0; n--) {
    const at = place()
    const near = (words[at] as number) + random.below(100) - 50
    words[at] = random.pick([0, -1, near, random.below(2 ** 32), 1 << random.below(32)])
  }
}

/** Reads until there is nothing, or something is wrong. What it throws must say so. */
function readAll(what: string, open: () => SharedSubscription): void {
  let most = 5000
  try {
    const reader = open()
    while (reader.take()) assert.ok(--most > 0, `${what} comes to no end`)
    assert.equal(reader.nextSync({ timeout: 0 }), undefined)
    reader.close()
  } catch (error) {
    assert.ok(error instanceof SpillwayError, `${what} fails with ${error}`)
  }
}

test('whatever is written over in a ring, its readers come to an end, and say what is wrong', async () => {
  const random = seededRandom('damage')
  for (let round = 0; round < 300; round++) {
    const { handle, reader } = await filled(random)
    const { cursor } = reader
    scribble(random, handle)
    const { subscribe } = openSharedBuffer({ memory: handle.memory })
    readAll('the reader', () => reader)
    for (const from of ['latest', 'earliest', random.below(400), cursor, 'x:3']) {
      readAll(`from ${from}`, () => subscribe({ from, onLag: 'skip' }))
    }
    try {
      recoverSharedBuffer(handle).close()
    } catch (error) {
      assert.ok(error instanceof SpillwayError, `taking over fails with ${error}`)
    }
  }
})
