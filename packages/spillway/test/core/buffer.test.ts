import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { test } from 'node:test'
import fc from 'fast-check'
import { EventBuffer, type EventBufferOptions } from '../../src/core/buffer.ts'
import { SpillwayError } from '../../src/core/errors.ts'
import type { BufferItem } from '../../src/core/item.ts'
import type { BufferReader, Delivery } from '../../src/core/reader.ts'
import { ManualClock } from '../support/clock.ts'
import { Random, seededRandom } from '../support/random.ts'
import { outcomeOf, turn, withCode } from '../support/waiting.ts'

interface Entry {
  readonly index: number
  readonly events?: readonly string[]
}

function filled(options: EventBufferOptions<Entry>, indexes: Iterable<number>): EventBuffer<Entry> {
  const buffer = new EventBuffer<Entry>(options)
  for (const index of indexes) buffer.append({ index })
  return buffer
}

function* range(from: number, to: number): Generator<number> {
  for (let index = from; index <= to; index++) yield index
}

/** The indexes of the batches that can be reached from an item, itself included unless it is the sentinel. */
function reachable(from: BufferItem<Entry>): number[] {
  const indexes: number[] = []
  for (let item: BufferItem<Entry> | undefined = from; item; item = item.nextNoBlock()) {
    if (item.batch) indexes.push(item.index)
  }
  return indexes
}

const indexesOf = ({ batches }: { batches: readonly Entry[] }): number[] => batches.map(({ index }) => index)

async function readNow(reader: BufferReader<Entry>): Promise<Delivery<Entry>> {
  const { value } = await reader.next()
  assert.ok(value)
  return value
}

test('1. a new buffer holds nothing but a sentinel', () => {
  const buffer = new EventBuffer<Entry>({ capacity: 10 })
  assert.equal(buffer.length, 0)
  assert.equal(buffer.head, buffer.tail)
  assert.equal(buffer.head.index, 0)
  assert.equal(buffer.head.batch, undefined)
  assert.equal(buffer.retained, 0)
  assert.equal(buffer.oldestIndex, undefined)
})

test('2. length counts batches, never events', () => {
  const buffer = new EventBuffer<Entry>({ capacity: 100 })
  buffer.append({ index: 1, events: Array.from({ length: 100 }, (_, n) => `event ${n}`) })
  assert.equal(buffer.length, 1)
  for (const index of range(2, 10)) buffer.append({ index })
  assert.equal(buffer.length, 10)
})

test('3. a full buffer drops its oldest batches, and counts as the original does', () => {
  const buffer = filled({ capacity: 10 }, range(1, 10))
  assert.equal(buffer.length, 10)
  for (const index of range(10, 14)) buffer.append({ index })
  assert.equal(buffer.length, 10)
  assert.equal(buffer.head.index, 5)
  assert.equal(buffer.tail.index, 14)
  assert.deepEqual(reachable(buffer.head), [5, 6, 7, 8, 9, 10, 10, 11, 12, 13, 14])
  assert.deepEqual([buffer.oldestIndex, buffer.newestIndex, buffer.retained], [5, 14, 11])
})

test('4. a reader whose next batch was dropped is told which indexes it missed', async () => {
  const buffer = filled({ capacity: 10 }, range(1, 10))
  const head = buffer.head
  for (const index of range(10, 14)) buffer.append({ index })
  const lagged = withCode('LAGGED', /event dropped from buffer.* index 0 .* kept is 5, 4 batches/i)
  await assert.rejects(head.next(), lagged)
  assert.throws(() => head.nextNoBlock(), lagged)
  const error = await head.next().catch((error: SpillwayError) => error)
  assert.deepEqual(error instanceof SpillwayError && error.gap, { after: 0, before: 5, reason: 'lag' })
})

test('5. after more appends than it holds, a buffer of size n reaches from k-n to k', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 100 }), (size, extra) => {
      const newest = size + extra
      const buffer = filled({ capacity: size }, range(1, newest))
      assert.equal(buffer.length, size)
      assert.deepEqual(reachable(buffer.head), [...range(newest - size, newest)])
    }),
  )
})

test('6. a buffer emptied from its head goes on with a sentinel', async () => {
  const buffer = filled({ capacity: 10 }, range(1, 10))
  for (let n = 0; n < 16; n++) buffer.advanceHead()
  assert.equal(buffer.head, buffer.tail)
  assert.equal(buffer.head.index, 0)
  assert.equal(buffer.length, 0)
  const head = buffer.head
  buffer.append({ index: 100 })
  assert.equal((await head.next()).index, 100)
})

test('7. 1,000 readers with random pauses see 1,000 batches, each once and in order', async () => {
  const random = seededRandom('rule 7')
  const buffer = new EventBuffer<Entry>({ capacity: 1000 })
  const pause = async (): Promise<void> => {
    if (random.oneIn(50)) await turn()
    else if (random.oneIn(5)) await null
  }
  const head = buffer.head
  const readers = Array.from({ length: 1000 }, async () => {
    let item = head
    for (let expected = 0; expected < 1000; expected++) {
      item = await item.next()
      assert.equal(item.index, expected)
      await pause()
    }
    assert.equal(item.nextNoBlock(), undefined)
  })
  for (const index of range(0, 999)) {
    buffer.append({ index })
    await pause()
  }
  await Promise.all(readers)
})

test('8. one append wakes all who wait at the tail, with the same item', async () => {
  const buffer = filled({}, [1])
  const { tail } = buffer
  const waiting = Array.from({ length: 5 }, () => tail.next())
  assert.equal((await outcomeOf(Promise.race(waiting))).state, 'pending')
  buffer.append({ index: 2 })
  const items = await Promise.all(waiting)
  assert.equal(items[0]?.index, 2)
  for (const item of items) assert.equal(item, buffer.tail)
})

test('9. abort ends a wait with its reason, and wins over an item that is ready', async () => {
  const buffer = filled({}, [1])
  const reason = new Error('enough')
  const rejectsWithReason = (promise: Promise<unknown>) => assert.rejects(promise, (error) => error === reason)

  const controller = new AbortController()
  const waiting = buffer.tail.next({ signal: controller.signal })
  controller.abort(reason)
  await rejectsWithReason(waiting)
  assert.equal(getEventListeners(controller.signal, 'abort').length, 0)

  await rejectsWithReason(buffer.head.next({ signal: controller.signal }))
  await rejectsWithReason(buffer.read({ from: 'earliest', signal: controller.signal }).next())
  assert.throws(
    () => buffer.read({ from: 'earliest', signal: controller.signal }).take(),
    (error) => error === reason,
  )

  const inSameTick = new AbortController()
  const woken = [buffer.tail.next(inSameTick), buffer.read(inSameTick).next()]
  buffer.append({ index: 2 })
  inSameTick.abort(reason)
  for (const promise of woken) await rejectsWithReason(promise)
})

test('10. a waiting reader that is closed by force is told that it was closed', async () => {
  const buffer = filled({}, [1])
  const controller = new AbortController()
  const item = buffer.tail.next({ signal: controller.signal })
  const reader = buffer.read({ signal: controller.signal }).next()
  controller.abort(new SpillwayError('CLOSED', 'Closed by force.'))
  await assert.rejects(item, withCode('CLOSED', /by force/))
  await assert.rejects(reader, withCode('CLOSED', /by force/))
})

test('11. an error item ends the buffer: what came before it can be read, then the error, on every call', async () => {
  const buffer = filled({}, [1])
  const last = buffer.tail
  const waiting = last.next()
  const failure = new Error('the disk is gone')
  const item = buffer.appendError(failure)
  const fails = (promise: Promise<unknown>) => assert.rejects(promise, (error) => error === failure)

  assert.equal((await buffer.head.next()).index, 1)
  await fails(waiting)
  for (let n = 0; n < 3; n++) await fails(last.next())
  assert.equal(last.nextNoBlock(), item)
  assert.equal(item.error, failure)
  assert.throws(() => buffer.append({ index: 2 }), withCode('CLOSED'))
  assert.throws(() => buffer.appendError(new Error('another')), withCode('CLOSED'))
  assert.equal(buffer.retained, 1)
})

for (const signal of [undefined, new AbortController().signal]) {
  const kind = signal ? 'with a signal' : 'without a signal'

  test(`11. a reader ${kind} gets what came before the error, then the error, on every call`, async () => {
    const buffer = filled({}, [1])
    const failure = new Error('the disk is gone')
    const behind = buffer.read(signal ? { from: 'earliest', signal } : { from: 'earliest' })
    const reader = buffer.read(signal ? { signal } : {})
    const waiting = reader.next()
    buffer.appendError(failure)
    const fails = (promise: Promise<unknown>) => assert.rejects(promise, (error) => error === failure)

    await fails(waiting)
    assert.deepEqual(indexesOf(await readNow(behind)), [1])
    for (const each of [reader, behind]) {
      await fails(each.next())
      await fails(each.next())
      for (let n = 0; n < 2; n++) {
        assert.throws(
          () => each.take(),
          (error) => error === failure,
        )
      }
    }
  })
}

test('11. a follower gets what came before the error, then its end, once', async () => {
  const buffer = filled({}, [1])
  const failure = new Error('the disk is gone')
  const seen: unknown[] = []
  buffer.follow((delivery) => seen.push(...indexesOf(delivery)), {
    from: 'earliest',
    onEnd: (error) => seen.push(error),
  })
  buffer.append({ index: 2 })
  buffer.appendError(failure)
  await turn()
  assert.deepEqual(seen, [1, 2, failure])
})

test('12. the next without waiting finds nothing at the tail', () => {
  const buffer = filled({}, [1])
  assert.equal(buffer.tail.nextNoBlock(), undefined)
  assert.equal(buffer.read().take(), undefined)
  buffer.append({ index: 2 })
  assert.equal(buffer.head.nextNoBlock()?.nextNoBlock()?.index, 2)
})

const closest = (buffer: EventBuffer<Entry>, asked: number): [number, number] => {
  const { item, offset } = buffer.startAtClosest(asked)
  return [item.index, offset]
}

test('13. the closest start is the first item at or after the index, else the last', () => {
  const buffer = filled({}, [10, 20, 100])
  const expected = new Map<number, [number, number]>([
    ...([
      [0, [0, 0]],
      [1, [10, 9]],
      [9, [10, 1]],
      [10, [10, 0]],
      [11, [20, 9]],
      [19, [20, 1]],
    ] as const),
    ...([
      [20, [20, 0]],
      [21, [100, 79]],
      [60, [100, 40]],
      [99, [100, 1]],
      [100, [100, 0]],
    ] as const),
    ...([
      [101, [100, 1]],
      [500, [100, 400]],
    ] as const),
  ] as [number, [number, number]][])
  for (const [asked, found] of expected) assert.deepEqual(closest(buffer, asked), found, `asked for ${asked}`)
})

test('14. the closest start in a buffer that is full, empty, or has an index twice', () => {
  const full = filled({ capacity: 100 }, range(11, 100))
  assert.deepEqual(
    [10, 11, 42, 500].map((asked) => closest(full, asked)),
    [
      [11, 1],
      [11, 0],
      [42, 0],
      [100, 400],
    ],
  )

  const empty = new EventBuffer<Entry>()
  assert.equal(empty.startAtClosest(7).item, empty.head)
  assert.equal(empty.startAtClosest(7).offset, 7)

  const twice = filled({}, [4, 5])
  const first = twice.tail
  twice.append({ index: 5 })
  assert.equal(twice.startAtClosest(5).item, first)
})

test('15. every item keeps the time of its append', async () => {
  const clock = new ManualClock()
  const buffer = new EventBuffer<Entry>({ clock })
  const start = clock.wall
  for (const index of [1, 2, 3]) {
    buffer.append({ index })
    await turn()
    clock.advance(1000)
  }
  const first = await buffer.head.next()
  assert.deepEqual([first.createdAt, buffer.tail.createdAt], [start, start + 2000])
  const item = buffer.appendError(new Error('the end'))
  assert.equal(item.createdAt, start + 3000)
})

test('16. the size defaults to 100, and a wrong one is refused by name', () => {
  assert.equal(new EventBuffer().capacity, 100)
  assert.equal(new EventBuffer({ capacity: 0 }).capacity, 100)
  for (const wrong of [-1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, '10', null, 2 ** 24 + 1]) {
    const options = { capacity: wrong as number }
    assert.throws(() => new EventBuffer(options), withCode('CONFIG', /^capacity /), String(wrong))
  }
  for (const option of ['maxBytes', 'maxAge', 'floor']) {
    const options = { [option]: -1, sizeOf: () => 1 }
    assert.throws(() => new EventBuffer(options), withCode('CONFIG', new RegExp(`^${option} `)))
  }
  assert.throws(() => new EventBuffer({ maxBytes: 10 }), withCode('CONFIG', /sizeOf/))
})

test('better: a burst over the whole size tells a reader nothing as long as its next batch is kept', async () => {
  const buffer = filled({ capacity: 3 }, [1, 2, 3])
  const item = (await buffer.head.next()) as BufferItem<Entry>
  const reader = buffer.read({ from: 1 })
  for (const index of [4, 5]) buffer.append({ index })
  assert.equal(buffer.oldestIndex, 2)
  assert.equal((await item.next()).index, 2)
  assert.deepEqual(await readNow(reader).then(indexesOf), [2, 3, 4, 5])
})

test('better: a waiter on a tail that was removed gets the next batch', async () => {
  const buffer = filled({}, [1])
  const { tail } = buffer
  const waiting = tail.next()
  buffer.advanceHead()
  buffer.advanceHead()
  assert.notEqual(buffer.tail, tail)
  assert.equal((await outcomeOf(waiting)).state, 'pending')
  buffer.append({ index: 2 })
  assert.equal((await waiting).index, 2)
})

test('better: a falling index is refused, and nothing is stored', () => {
  const buffer = filled({}, [5])
  assert.throws(() => buffer.append({ index: 4 }), withCode('INDEX_ORDER', /Index 4 .* 5/))
  for (const index of [1.5, Number.NaN, -1, 2 ** 53]) assert.throws(() => buffer.append({ index }), SpillwayError)
  assert.deepEqual(reachable(buffer.head), [5])
  assert.equal(buffer.newestIndex, 5)
})

test('better: a buffer keeps as many bytes as it may, and refuses what is larger', () => {
  const buffer = new EventBuffer<{ index: number; size: number }>({ maxBytes: 10, sizeOf: ({ size }) => size })
  for (const index of [1, 2, 3]) buffer.append({ index, size: 4 })
  assert.deepEqual([buffer.oldestIndex, buffer.bytes, buffer.floor], [2, 8, 1])
  assert.throws(
    () => buffer.append({ index: 4, size: 11 }),
    withCode('TOO_LARGE', /index 4 has 11 bytes, maxBytes is 10/),
  )
  assert.deepEqual([buffer.oldestIndex, buffer.newestIndex, buffer.bytes], [2, 3, 8])
  buffer.append({ index: 4, size: 10 })
  assert.deepEqual([buffer.oldestIndex, buffer.retained, buffer.bytes], [4, 1, 10])
  buffer.advanceHead()
  assert.deepEqual([buffer.retained, buffer.bytes], [0, 0])
})

test('better: a buffer drops what is older than it may be, with the next append or trim', async () => {
  const clock = new ManualClock()
  const buffer = new EventBuffer<Entry>({ maxAge: 1000, clock })
  const appendAt = async (index: number): Promise<void> => {
    buffer.append({ index })
    await turn()
  }
  await appendAt(1)
  clock.advance(600)
  await appendAt(2)
  clock.advance(400)
  await appendAt(3)
  assert.equal(buffer.oldestIndex, 1, 'exactly the age is not older')
  clock.advance(1)
  await appendAt(4)
  assert.equal(buffer.oldestIndex, 2)
  clock.wall += 3_600_000
  buffer.trim()
  assert.equal(buffer.oldestIndex, 2, 'a wall clock that was set ages nothing')
  clock.advance(5000)
  buffer.trim()
  assert.deepEqual([buffer.retained, buffer.floor, buffer.newestIndex], [0, 4, 4])
  assert.equal(buffer.head, buffer.tail)
})

test('a reader that starts where nothing is kept any more is told the gap first', async () => {
  const buffer = filled({ capacity: 2 }, [10, 20, 30, 40])
  assert.equal(buffer.floor, 10)
  assert.deepEqual((await readNow(buffer.read({ from: 'earliest' }))).gap, undefined)
  assert.deepEqual((await readNow(buffer.read({ from: 10 }))).gap, undefined)
  assert.deepEqual(indexesOf(await readNow(buffer.read({ from: 25 }))), [30, 40])
  assert.deepEqual((await readNow(buffer.read({ from: 5 }))).gap, { after: 5, before: 20, reason: 'retention' })
  const beyond = buffer.read({ from: 50 })
  assert.deepEqual(beyond.take()?.gap, { after: 50, before: 41, reason: 'truncated' })
  assert.equal(beyond.take(), undefined)
  for (const from of [-1, 1.5, Number.NaN, 'middle']) {
    assert.throws(() => buffer.read({ from: from as number }), withCode('INVALID', /^from /))
  }
})

test('a history that goes on has its floor before the first append', async () => {
  const buffer = new EventBuffer<Entry>({ floor: 100 })
  assert.deepEqual([buffer.floor, buffer.newestIndex, buffer.oldestIndex], [100, 100, undefined])
  assert.throws(() => buffer.append({ index: 99 }), withCode('INDEX_ORDER'))
  const early = buffer.read({ from: 7 })
  assert.deepEqual(early.take()?.gap, { after: 7, before: 101, reason: 'retention' })
  buffer.append({ index: 101 })
  assert.deepEqual(indexesOf(await readNow(early)), [101])
})

test('a reader with many batches before it gets them page by page', async () => {
  const buffer = filled({ capacity: 5000 }, range(1, 5000))
  const reader = buffer.read({ from: 'earliest' })
  const seen: number[] = []
  for (let delivery = reader.take(); delivery; delivery = reader.take()) {
    assert.ok(delivery.batches.length <= 1024)
    seen.push(...indexesOf(delivery))
  }
  assert.deepEqual(seen, [...range(1, 5000)])
})

test('readers at one place share what they are given', async () => {
  const buffer = filled({}, [1])
  const waiting = [buffer.read().next(), buffer.read().next(), buffer.read().next()]
  const followed: Delivery<Entry>[] = []
  buffer.follow((delivery) => followed.push(delivery))
  buffer.append({ index: 2 })
  const [first, second, third] = await Promise.all(waiting)
  assert.ok(first?.value)
  assert.equal(second?.value, first.value)
  assert.equal(third?.value, first.value)
  assert.equal(followed[0], first.value)
})

test('readers at one place get all that is there when each of them asks, whatever others got in the same tick', () => {
  const buffer = filled({ capacity: 3 }, [1])
  const [first, second, third] = [buffer.read(), buffer.read(), buffer.read()]
  buffer.append({ index: 2 })
  assert.deepEqual(indexesOf(first.take() ?? assert.fail()), [2])
  assert.deepEqual(indexesOf(second.take() ?? assert.fail()), [2])
  buffer.append({ index: 3 })
  assert.deepEqual(indexesOf(third.take() ?? assert.fail()), [2, 3])
})

test('a reader is told what was dropped since others at its place were served in the same tick', () => {
  const buffer = filled({}, [1])
  const [first, second] = [buffer.read(), buffer.read()]
  for (const index of [2, 3, 4]) buffer.append({ index })
  assert.deepEqual(indexesOf(first.take() ?? assert.fail()), [2, 3, 4])
  while (buffer.oldestIndex !== 4) buffer.advanceHead()
  const delivery = second.take()
  assert.deepEqual(delivery?.gap, { after: 1, before: 4, reason: 'lag' })
  assert.deepEqual(indexesOf(delivery ?? assert.fail()), [4])
})

test('readers that came to wait at different places within one tick are all woken', async () => {
  const buffer = filled({}, [1])
  const readers = [buffer.read(), buffer.read(), buffer.read()]
  const waiting: Promise<Delivery<Entry>>[] = []
  for (const [position, reader] of readers.entries()) {
    if (position > 0) assert.ok(reader.take())
    waiting.push(readNow(reader))
    buffer.append({ index: position + 2 })
  }
  await buffer.flushed()
  const seen = await Promise.all(waiting)
  assert.deepEqual(seen.map(indexesOf), [[2, 3, 4], [3, 4], [4]])
})

test('a reader whose return is called ends, and its wait with it', async () => {
  const buffer = filled({}, [1])
  const controller = new AbortController()
  const reader = buffer.read({ signal: controller.signal })
  const waiting = reader.next()
  await reader.return()
  assert.deepEqual(await waiting, { done: true, value: undefined })
  assert.equal(getEventListeners(controller.signal, 'abort').length, 0)
  assert.deepEqual(await reader.next(), { done: true, value: undefined })

  const shared = buffer.read()
  const until = shared.next()
  await shared.return()
  buffer.append({ index: 2 })
  assert.equal((await until).value?.index, 2)
  assert.deepEqual(await shared.next(), { done: true, value: undefined })
})

test('leaving a for-await loop ends the reader', async () => {
  const buffer = filled({}, [1, 2])
  const controller = new AbortController()
  const reader = buffer.read({ from: 'earliest', signal: controller.signal })
  const seen: number[] = []
  for await (const delivery of reader) {
    seen.push(...indexesOf(delivery))
    if (seen.includes(3)) break
    setImmediate(() => buffer.append({ index: 3 }))
  }
  assert.deepEqual(seen, [1, 2, 3])
  assert.equal(getEventListeners(controller.signal, 'abort').length, 0)
  assert.equal((await reader.next()).done, true)
})

test('a second next of one reader waits for the first', async () => {
  for (const signal of [undefined, new AbortController().signal]) {
    const buffer = filled({}, [1])
    const reader = buffer.read(signal ? { signal } : {})
    const first = reader.next()
    const second = reader.next()
    buffer.append({ index: 2 })
    assert.deepEqual(indexesOf((await first).value as Delivery<Entry>), [2])
    buffer.append({ index: 3 })
    assert.deepEqual(indexesOf((await second).value as Delivery<Entry>), [3])
  }
})

const waysToEnd: Record<
  string,
  (buffer: EventBuffer<Entry>, reader: BufferReader<Entry>, controller: AbortController) => void
> = {
  'abort while it waits': (_, reader, controller) => {
    reader.next().catch(() => {})
    controller.abort()
  },
  'abort after it got something': (_, __, controller) => controller.abort(),
  'return while it waits': (_, reader) => {
    void reader.next()
    void reader.return()
  },
  return: (_, reader) => void reader.return(),
  'the end of the buffer while it waits': (buffer, reader) => {
    reader.next().catch(() => {})
    buffer.close()
  },
  'the end of the buffer': (buffer, reader) => {
    buffer.close()
    reader.next().catch(() => {})
  },
}

for (const [way, end] of Object.entries(waysToEnd)) {
  test(`a reader leaves no listener on its signal: ${way}`, async () => {
    const buffer = filled({}, [1])
    const controller = new AbortController()
    const reader = buffer.read({ signal: controller.signal })
    const first = reader.next()
    buffer.append({ index: 2 })
    await first
    end(buffer, reader, controller)
    await turn()
    assert.equal(getEventListeners(controller.signal, 'abort').length, 0)
  })
}

test('an item leaves no listener on a signal, however its wait ends', async () => {
  const buffer = filled({}, [1])
  const { signal } = new AbortController()
  const waiting = buffer.tail.next({ signal })
  assert.equal(getEventListeners(signal, 'abort').length, 1)
  buffer.append({ index: 2 })
  await waiting
  assert.equal(getEventListeners(signal, 'abort').length, 0)
  const failing = assert.rejects(buffer.tail.next({ signal }), withCode('CLOSED'))
  buffer.close()
  await failing
  assert.equal(getEventListeners(signal, 'abort').length, 0)
})

test('a paused follower is told what was dropped meanwhile, and goes on', async () => {
  const buffer = filled({ capacity: 2 }, [1])
  const seen: unknown[] = []
  const follower = buffer.follow(({ gap, batches }) => {
    if (gap) seen.push(gap)
    seen.push(...batches.map(({ index }) => index))
  })
  follower.pause()
  for (const index of range(2, 9)) buffer.append({ index })
  await turn()
  assert.deepEqual(seen, [])
  follower.resume()
  await turn()
  assert.deepEqual(seen, [{ after: 1, before: 7, reason: 'lag' }, 7, 8, 9])
  buffer.append({ index: 10 })
  follower.stop()
  follower.stop()
  follower.resume()
  await turn()
  assert.equal(seen.at(-1), 9, 'a follower that was stopped is never called again')
})

test('a follower may pause, stop and start others while it is called', async () => {
  const buffer = filled({}, [1])
  const seen: string[] = []
  const second = buffer.follow(({ index }) => seen.push(`second ${index}`))
  const first = buffer.follow(({ index }) => {
    seen.push(`first ${index}`)
    if (index === 2) first.pause()
    if (index === 2) second.stop()
    if (index === 2) buffer.follow((delivery) => seen.push(`third ${indexesOf(delivery)}`), { from: 'earliest' })
  })
  buffer.append({ index: 2 })
  await turn()
  buffer.append({ index: 3 })
  await turn()
  first.resume()
  await turn()
  assert.deepEqual(seen, ['second 2', 'first 2', 'third 1,2', 'third 3', 'first 3'])
})

test('a burst within one tick that is longer than the buffer overruns who awaits, not who follows', async () => {
  const buffer = new EventBuffer<Entry>({ capacity: 10 })
  const followed: number[] = []
  buffer.follow((delivery) => {
    assert.equal(delivery.gap, undefined)
    followed.push(...indexesOf(delivery))
  })
  const signal = new AbortController().signal
  const awaiting = [readNow(buffer.read()), readNow(buffer.read({ signal }))]
  const item = buffer.tail.next()
  for (const index of range(1, 100)) buffer.append({ index })
  for (const delivery of await Promise.all(awaiting)) {
    assert.deepEqual(delivery.gap, { after: 0, before: 90, reason: 'lag' })
    assert.deepEqual(indexesOf(delivery), [...range(90, 100)])
  }
  await assert.rejects(item, withCode('LAGGED', /89 batches were missed/))
  assert.deepEqual(followed, [...range(1, 100)])
})

test('a publisher that awaits flushed between the parts of a burst overruns nobody', async () => {
  const buffer = new EventBuffer<Entry>({ capacity: 10 })
  const read = async (reader: BufferReader<Entry>): Promise<number[]> => {
    const seen: number[] = []
    for await (const delivery of reader) {
      assert.equal(delivery.gap, undefined)
      seen.push(...indexesOf(delivery))
      if (seen.length === 100) return seen
    }
    return seen
  }
  const signal = new AbortController().signal
  const readers = [buffer.read(), buffer.read(), buffer.read({ signal }), buffer.read({ signal })].map(read)
  for (let part = 0; part < 10; part++) {
    for (const index of range(part * 10 + 1, part * 10 + 10)) buffer.append({ index })
    await buffer.flushed()
  }
  for (const seen of await Promise.all(readers)) assert.deepEqual(seen, [...range(1, 100)])
})

test('flushed resolves at once when nothing was appended', async () => {
  const buffer = filled({}, [])
  await buffer.flushed()
})

test('a follower that throws ends, its mistake surfaces, and nobody else is disturbed', async (t) => {
  const surfaced: unknown[] = []
  // The test runner's own listener would count it as a failure of this test.
  const others = process.rawListeners('unhandledRejection') as NodeJS.UnhandledRejectionListener[]
  process.removeAllListeners('unhandledRejection')
  process.on('unhandledRejection', (error) => surfaced.push(error))
  t.after(() => {
    process.removeAllListeners('unhandledRejection')
    for (const listener of others) process.on('unhandledRejection', listener)
  })
  const buffer = new EventBuffer<Entry>()
  const seen: string[] = []
  const mistake = new Error('a mistake in a listener')
  buffer.follow((delivery) => seen.push(`before ${indexesOf(delivery)}`))
  const failing = buffer.follow(() => {
    seen.push('failing')
    throw mistake
  })
  buffer.follow((delivery) => seen.push(`after ${indexesOf(delivery)}`))
  const awaiting = readNow(buffer.read())
  buffer.append({ index: 1 })
  await turn()
  buffer.append({ index: 2 })
  await turn()
  assert.deepEqual(seen, ['before 1', 'failing', 'after 1', 'before 2', 'after 2'])
  assert.deepEqual(indexesOf(await awaiting), [1])
  assert.equal(failing.stopped, true)
  assert.deepEqual(surfaced, [mistake])
})

test('a follower that appends while it is called keeps the order, and misses nothing that is kept', async () => {
  const buffer = new EventBuffer<Entry>({ capacity: 4 })
  const seen: number[] = []
  buffer.follow((delivery) => {
    assert.equal(delivery.gap, undefined)
    if (delivery.index < 10) buffer.append({ index: delivery.index + 1 })
  })
  buffer.follow((delivery) => {
    assert.equal(delivery.gap, undefined)
    seen.push(...indexesOf(delivery))
  })
  buffer.append({ index: 1 })
  await buffer.flushed()
  assert.deepEqual(seen, [...range(1, 10)])
})

test('close ends the buffer with CLOSED, and may be called twice', async () => {
  const buffer = filled({}, [1])
  const waiting = [buffer.read().next(), buffer.read(new AbortController()).next(), buffer.tail.next()]
  buffer.close()
  buffer.close()
  for (const promise of waiting) await assert.rejects(promise, withCode('CLOSED'))
  assert.throws(() => buffer.append({ index: 2 }), withCode('CLOSED'))
  assert.ok(buffer.error instanceof SpillwayError)
})

test('a reader that starts at a sentinel is told of the batches that came after the sentinel, and no others', async () => {
  const buffer = filled({ capacity: 2 }, [1, 2, 3])
  while (buffer.retained > 0) buffer.advanceHead()
  const { head } = buffer
  for (const index of range(4, 9)) buffer.append({ index })
  const error = await head.next().catch((error: SpillwayError) => error)
  assert.deepEqual(error instanceof SpillwayError && error.gap, { after: 3, before: 7, reason: 'lag' })
})

test('the random generator of these tests repeats itself', () => {
  const numbers = (seed: number): number[] => {
    const random = new Random(seed)
    return Array.from({ length: 10 }, () => random.below(1000))
  }
  assert.deepEqual(numbers(7), numbers(7))
  assert.notDeepEqual(numbers(7), numbers(8))
})

test('followers that come while another is served do not make a running one miss anything', async () => {
  const buffer = new EventBuffer<Entry>({ capacity: 1 })
  const seen: number[] = []
  buffer.follow(() => {
    for (let n = 0; n < 3; n++) buffer.follow(() => {})
  })
  buffer.follow((delivery) => {
    assert.equal(delivery.gap, undefined)
    seen.push(...indexesOf(delivery))
  })
  for (let index = 1; index <= 12; index++) buffer.append({ index })
  await buffer.flushed()
  assert.deepEqual(seen, [...range(1, 12)])
})
