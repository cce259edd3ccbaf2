import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { Clock } from '../core/clock.ts'
import { parseCursor } from '../core/cursor.ts'
import { type EventInput, encodeEvents, JsonText, type PendingBatch, type StoredBatch } from '../core/event.ts'
import type { AppendOptions, Log, LogStart } from '../core/log.ts'
import { Random } from './random.ts'

/** What a log of the suite is to keep, and by which time. */
export interface LogLimits {
  /** Batches; a log may keep a 64th more, and one batch. */
  readonly capacity?: number
  /** UTF-8 bytes of payloads and names; a log may keep a 64th more, and one batch. */
  readonly maxBytes?: number
  /** Milliseconds. */
  readonly maxAge?: number
  /** What the log measures time by, a reopened one too. It stands still until the test moves it. */
  readonly clock: Clock
}

/** Opens a log without a history. What it needs beside, such as a folder, is undone with `t.after`; the suite closes the log. */
export type OpenLog = (limits: LogLimits, t: TestContext) => Promise<Log>

/**
 * What a log leaves to the engine beneath it, and the suite to tests of its own. `ages`: the engine's clock lets go of what is
 * too old, so a test cannot move it. `far indexes`: numbers cannot be skipped by the billion. `keys of what is gone`: who opens
 * a history again knows the keys of batches that are kept when it first uses one.
 */
export type LogTrait = 'ages' | 'far indexes' | 'keys of what is gone'

export interface LogSuiteOptions {
  /** Default: nothing. */
  without?: readonly LogTrait[] | undefined
  /** Batches of the largest append. Default 150,000, more than a function may have arguments. */
  largestAppend?: number | undefined
  /** Closes `log` and opens the same history again, with the same limits. Absent: the history ends with the process. */
  reopen?: ((log: Log) => Promise<Log>) | undefined
}

/**
 * The contract of {@link Log} as tests for `node:test`, whose names start with `name`. Every test opens a log of its own.
 * The environment variable SEED repeats a random test.
 */
export function logSuite(
  name: string,
  open: OpenLog,
  { reopen, without = [], largestAppend = 150_000 }: LogSuiteOptions = {},
): void {
  const check: Check = (promise, run, trait) => {
    if (trait && without.includes(trait)) return
    test(`${name}: ${promise}`, async (t) => {
      const clock = new TestClock()
      const opened: Log[] = []
      // Before what `open` undoes: a folder must not go while its log is open.
      t.after(() => Promise.all(opened.map((log) => log.close())))
      const note = (log: Log) => {
        opened.push(log)
        return log
      }
      await run({
        clock,
        open: async (limits = {}) => note(await open({ ...limits, clock }, t)),
        reopen: async (log) => note(reopen ? await reopen(log) : log),
        t,
      })
    })
  }
  checkIndexes(check, largestAppend)
  checkPages(check)
  checkContent(check)
  checkLimits(check)
  checkFollowers(check)
  checkExpected(check)
  checkKeys(check)
  checkStarts(check)
  checkClosing(check)
  if (reopen) checkReopening(check)
  checkModel(check, without.includes('keys of what is gone'))
}

interface Setup {
  readonly clock: TestClock
  open(limits?: Omit<LogLimits, 'clock'>): Promise<Log>
  /** The log itself where histories end with the process. */
  reopen(log: Log): Promise<Log>
  readonly t: TestContext
}

type Check = (promise: string, run: (setup: Setup) => Promise<void>, needs?: LogTrait) => void

function checkIndexes(check: Check, largestAppend: number): void {
  check('indexes start at 1 and grow by one, unless a larger one is wanted', async ({ open }) => {
    const log = await open()
    assert.deepEqual([log.floor, log.last], [0, 0])
    assert.deepEqual(await append(log, [batch('a')]), [1])
    assert.deepEqual(await append(log, [batch('b'), batch('c', 10), batch('d')]), [2, 10, 11])
    assert.deepEqual(await append(log, [batch('e', 12), batch('f', 1000)]), [12, 1000])
    assert.deepEqual([log.floor, log.last], [0, 1000])
    assert.deepEqual(keysOf(await readAll(log)), ['1 a', '2 b', '10 c', '11 d', '12 e', '1000 f'])
  })

  check('a wanted index that is not above the one before it stores nothing of the whole append', async ({ open }) => {
    const log = await open()
    const told = follow(log)
    await append(log, [batch('a', 5)])
    for (const index of [1, 4, 5, 6, 7]) {
      await rejects(log.append([batch('b'), batch('c'), batch('d', index), batch('e')]), 'INDEX_ORDER')
    }
    await rejects(log.append([batch('b', 5)]), 'INDEX_ORDER')
    assert.equal(log.last, 5)
    assert.deepEqual(keysOf(await readAll(log)), ['5 a'])
    assert.deepEqual(await append(log, [batch('f')]), [6])
    assert.deepEqual(keysOf(told), ['5 a', '6 f'])
  })

  check(
    'a history whose indexes are used up takes nothing more, and can still be read',
    async ({ open }) => {
      const log = await open()
      const most = Number.MAX_SAFE_INTEGER
      assert.deepEqual(await append(log, [batch('a'), batch('b', most - 1), batch('c')]), [1, most - 1, most])
      await rejects(log.append([batch('d')]), 'INDEX_ORDER')
      assert.equal(log.last, most)
      assert.deepEqual(keysOf(await readAll(log)), ['1 a', `${most - 1} b`, `${most} c`])
      assert.deepEqual(keysOf((await log.read(most - 1, 10)).batches), [`${most} c`])
      assert.deepEqual((await log.read(most, 10)).batches, [])
    },
    'far indexes',
  )

  check(
    '100 appends at once get indexes in the order of the calls, and each is told before it resolves',
    async ({ open }) => {
      const log = await open({ capacity: 1000 })
      const told = follow(log)
      const expected: string[] = []
      const appends = Array.from({ length: 100 }, async (_, n) => {
        const names = Array.from({ length: 1 + (n % 3) }, (_, m) => `${n}.${m}`)
        for (const name of names) expected.push(`${expected.length + 1} ${name}`)
        const last = expected.length
        const indexes = await append(
          log,
          names.map((name) => batch(name)),
        )
        assert.deepEqual(
          indexes,
          names.map((_, m) => last - names.length + m + 1),
        )
        assert.ok(told.length >= last && log.last >= last, `append ${n} resolved before ${last} was told`)
      })
      await Promise.all(appends)
      assert.deepEqual(keysOf(told), expected)
      assert.deepEqual(keysOf(await readAll(log)), expected)
    },
  )

  check('an append may have very many batches', async ({ open }) => {
    const log = await open({ capacity: 10 })
    const told = follow(log)
    const total = largestAppend
    const batches = new Array<PendingBatch>(total).fill(batch('a'))
    const { indexes, duplicate } = await log.append(batches, { key: 'k' })
    assert.deepEqual([indexes.length, indexes[0], indexes.at(-1), duplicate], [total, 1, total, false])
    assert.deepEqual([told.length, told.at(-1)?.index, log.last], [total, total, total])
    assert.equal((await log.append(batches, { key: 'k' })).duplicate, true)
    assert.equal(log.last, total)
  })

  check('every history has an epoch of its own that cursors can hold', async ({ open }) => {
    const [first, second] = [await open(), await open()]
    assert.notEqual(first.epoch, second.epoch)
    await append(first, [batch('a')])
    for (const { epoch, cursor } of await readAll(first)) {
      assert.equal(epoch, first.epoch)
      assert.deepEqual(parseCursor(cursor), { epoch, index: 1 })
    }
  })
}

function checkPages(check: Check): void {
  check('a page holds batches after an index, oldest first, and not more than were asked for', async ({ open }) => {
    const log = await open()
    await append(
      log,
      [1, 2, 5, 6, 9].map((index) => batch('a', index)),
    )
    const page = async (after: number, limit: number) => indexesOf((await log.read(after, limit)).batches)
    assert.deepEqual(await page(0, 1), [1])
    assert.deepEqual(await page(1, 1), [2])
    assert.deepEqual(await page(2, 1), [5])
    assert.deepEqual(await page(3, 1), [5])
    assert.deepEqual(await page(8, 1), [9])
    for (const [after, limit, expected] of [
      [0, 3, [1, 2, 5]],
      [0, 5, [1, 2, 5, 6, 9]],
      [0, 1000, [1, 2, 5, 6, 9]],
      [4, 2, [5, 6]],
    ] as const) {
      const got = await page(after, limit)
      // A log may end a page early, but not with nothing.
      assert.ok(got.length > 0)
      assert.deepEqual(got, expected.slice(0, got.length))
    }
    for (const limit of [1, 2, 3, 100]) assert.deepEqual(indexesOf(await readAll(log, 0, limit)), [1, 2, 5, 6, 9])
  })

  check('a page at or beyond the newest index is empty', async ({ open }) => {
    const log = await open()
    assert.deepEqual(await readAll(log), [])
    await append(log, [batch('a'), batch('b')])
    for (const after of [2, 3, 1000, Number.MAX_SAFE_INTEGER]) {
      const { floor, batches } = await log.read(after, 10)
      assert.deepEqual([floor, batches], [0, []])
    }
  })

  check('a page from below the floor says so, and starts with the oldest batch that is kept', async ({ open }) => {
    const log = await open({ capacity: 10 })
    for (let n = 1; n <= 50; n++) await append(log, [batch(String(n))])
    const { floor } = log
    assert.ok(floor > 0)
    for (const after of [0, 1, floor - 1, floor]) {
      const page = await log.read(after, 1)
      assert.deepEqual([page.floor, indexesOf(page.batches)], [floor, [floor + 1]])
    }
  })

  check('what an append has stored can be read once it resolves, by many at once', async ({ open }) => {
    const log = await open({ capacity: 1000 })
    await Promise.all(
      Array.from({ length: 50 }, async (_, n) => {
        const [index = 0] = await append(log, [batch(String(n))])
        assert.deepEqual(keysOf((await log.read(index - 1, 1)).batches), [`${index} ${n}`])
      }),
    )
  })
}

const payloads: readonly unknown[] = [
  undefined,
  null,
  '',
  [],
  { '': {}, '\u2028': '\u0000\u001f\u007f\u0085\u2028\u2029\ufeff\ufffe\uffff\u{1f600}\u{10ffff}' },
  '"\'`\\/ \n\r\t \u001e %s <!-- ]]> \\u0041 \\',
  new JsonText('{ "large": 9007199254740993.00000000000000000001, "e": [1e400, -0, 1E+2] }'),
  new JsonText('\t"\\u00e9 \\ud800 \\/" '),
  new JsonText('{"twice":1,"twice":2,"__proto__":3}'),
]

const names: readonly string[] = [
  '',
  ' ',
  '"',
  "'",
  '\\',
  '\\n',
  ',',
  '[]',
  'null',
  '0',
  '__proto__',
  '\u{1f600}',
  '\u2028',
  '\ufeff',
  'e\u0301',
  '\u00e9',
  'x'.repeat(1024),
]

function checkContent(check: Check): void {
  check('events come back as they were published, to the byte', async ({ open, reopen }) => {
    const log = await open({ capacity: 1000 })
    const told = follow(log)
    const inputs = payloads.flatMap((payload) => names.map((name) => input(name, payload)))
    const batches = [...inputs.map((event) => encodeEvents([event])), encodeEvents(inputs)]
    await append(log, batches)
    const expected = batches.map((pending, n) => contentOf({ ...pending, index: n + 1 }))
    assert.deepEqual(told.map(contentOf), expected)
    assert.deepEqual((await readAll(log)).map(contentOf), expected)
    const again = await readAll(await reopen(log))
    assert.deepEqual(again.map(contentOf), expected)
    assert.deepEqual(
      again.at(-1)?.view.events.map(({ payload }) => payload),
      batches.at(-1)?.events.map(({ payloadText }) => JSON.parse(payloadText)),
    )
  })

  check('payloads of a megabyte come back whole, also many of them in one append', async ({ open }) => {
    const log = await open()
    const batches = ['a', '\u00e9', '\u{1f600}', '\\', '"'].map((text) =>
      encodeEvents([input(text, text.repeat(2 ** 20 / text.length))]),
    )
    await append(log, batches)
    assert.deepEqual(
      (await readAll(log)).map(contentOf),
      batches.map((pending, n) => contentOf({ ...pending, index: n + 1 })),
    )
  })
}

function checkLimits(check: Check): void {
  check('the newest batches are kept by number: never fewer than the limit, and never many more', async ({ open }) => {
    for (const capacity of [1, 10, 200]) {
      const log = await open({ capacity })
      for (let n = 1; n <= capacity * 2 + 50; n += 3) {
        await append(log, [batch('a'), batch('b'), batch('c')])
        checkCount(await readAll(log), log, capacity, n + 2)
      }
    }
  })

  check('the newest batches are kept by bytes', async ({ open }) => {
    const maxBytes = 256_000
    // Large ones, so that what a log adds to a batch does not matter: a 16th of it at the most.
    const large = () => encodeEvents([input('a', 'x'.repeat(8000))])
    const { bytes } = large()
    const log = await open({ maxBytes, capacity: 10_000 })
    for (let n = 1; n <= 100; n++) {
      await append(log, [large()])
      const kept = await readAll(log)
      assert.deepEqual(
        indexesOf(kept),
        Array.from({ length: n - log.floor }, (_, m) => log.floor + 1 + m),
      )
      assert.ok(kept.length * bytes <= maxBytes * (1 + 1 / 64) + bytes, `${kept.length} batches of ${bytes}`)
      if (log.floor > 0) assert.ok((kept.length + 1) * bytes * (1 + 1 / 16) > maxBytes, `${kept.length} of ${bytes}`)
    }
    assert.ok(log.floor > 0)
  })

  check(
    'batches are kept for their age, and go when it has passed',
    async ({ open, clock }) => {
      const log = await open({ maxAge: 10_000 })
      await append(log, [batch('a'), batch('b')])
      await pass(clock, 6000)
      await append(log, [batch('c')])
      await pass(clock, 3900)
      assert.deepEqual(keysOf(await readAll(log)), ['1 a', '2 b', '3 c'])
      await pass(clock, 200)
      await append(log, [batch('d')])
      assert.deepEqual([log.floor, keysOf(await readAll(log, 2))], [2, ['3 c', '4 d']])
      assert.equal((await log.read(0, 10)).floor, 2)
    },
    'ages',
  )

  check(
    'what is too old goes without an append too',
    async ({ open, clock }) => {
      const log = await open({ maxAge: 10_000 })
      await append(log, [batch('a'), batch('b')])
      for (let n = 0; log.floor < 2; n++) {
        assert.ok(n < 1000, 'it is still there after ten times its age')
        await pass(clock, 100)
      }
      const { floor, batches } = await log.read(0, 10)
      assert.deepEqual([floor, batches], [2, []])
      assert.deepEqual(await append(log, [batch('c')]), [3])
      assert.deepEqual(keysOf(await readAll(log, 2)), ['3 c'])
    },
    'ages',
  )

  check('readers of every pace miss no batch in silence while the oldest go', async ({ open }) => {
    const log = await open({ capacity: 100 })
    const total = 3000
    const readers = [1, 2, 7, 50, 1000].map((limit, n) => readWhileTrimming(log, total, limit, n))
    for (let stored = 0; stored < total; stored += 30) {
      await Promise.all(Array.from({ length: 10 }, () => append(log, [batch('a'), batch('b'), batch('c')])))
      await turn()
    }
    const gaps = await Promise.all(readers)
    assert.ok(gaps[0] !== undefined && gaps[0] > 0, 'nobody was too slow: the test shows nothing')
  })
}

/** Reads up to `total`, `idle` turns between two pages, and answers how often it was told of a loss. */
async function readWhileTrimming(log: Log, total: number, limit: number, idle: number): Promise<number> {
  let after = 0
  let gaps = 0
  while (after < total) {
    const known = log.last
    const { floor, lost = 0, batches } = await log.read(after, limit)
    assert.equal(lost, 0)
    assert.ok(batches.length <= limit)
    const [first] = batches
    if (floor > after) gaps++
    else if (!first) assert.ok(known <= after, `an empty page after ${after} though ${known} was stored`)
    let next = Math.max(after, floor) + 1
    if (first) {
      assert.ok(first.index > after && first.index <= next, `${first.index} came after ${after}, the floor is ${floor}`)
      next = first.index
    }
    for (const { index } of batches) assert.equal(index, next++)
    after = next - 1
    for (let n = idle; n >= 0; n--) await turn()
  }
  return gaps
}

function checkFollowers(check: Check): void {
  check('followers are told of every batch from now on, until they stop', async ({ open }) => {
    const log = await open()
    await append(log, [batch('before')])
    const stopped: StoredBatch[] = []
    const stop = log.follow((batch) => stopped.push(batch))
    const told = follow(log)
    await append(log, [batch('a'), batch('b')])
    stop()
    stop()
    await append(log, [batch('c')])
    assert.deepEqual(keysOf(stopped), ['2 a', '3 b'])
    assert.deepEqual(keysOf(told), ['2 a', '3 b', '4 c'])
  })

  check('a follower that stops in the middle of an append is told nothing more', async ({ open }) => {
    const log = await open()
    const seen: number[] = []
    const stop = log.follow(({ index }) => {
      seen.push(index)
      if (index === 2) stop()
    })
    const told = follow(log)
    await append(log, [batch('a'), batch('b'), batch('c')])
    assert.deepEqual(seen, [1, 2])
    assert.deepEqual(indexesOf(told), [1, 2, 3])
  })

  check('a follower that comes while others are told starts after the newest index', async ({ open }) => {
    const log = await open()
    const late: number[] = []
    let start: number | undefined
    log.follow(() => {
      if (start !== undefined) return
      start = log.last
      log.follow(({ index }) => late.push(index))
    })
    await append(log, [batch('a'), batch('b'), batch('c')])
    await append(log, [batch('d')])
    assert.deepEqual(
      late,
      [1, 2, 3, 4].filter((index) => index > (start ?? 0)),
    )
  })

  check('a follower may append, and all are told of both in order', async ({ open }) => {
    const log = await open()
    const before = follow(log)
    const answers: Promise<number[]>[] = []
    log.follow(({ index }) => {
      if (index <= 4) answers.push(append(log, [batch(`after ${index}`)]))
    })
    const after = follow(log)
    assert.deepEqual(await append(log, [batch('a'), batch('b')]), [1, 2])
    for (let n = 0; n < answers.length; n++) assert.deepEqual(await answers[n], [n + 3])
    const expected = ['1 a', '2 b', '3 after 1', '4 after 2', '5 after 3', '6 after 4']
    assert.deepEqual(keysOf(before), expected)
    assert.deepEqual(keysOf(after), expected)
    assert.deepEqual(keysOf(await readAll(log)), expected)
  })

  check(
    'a follower that throws fails for itself: the append succeeds, others are told, its error surfaces',
    async ({ open, t }) => {
      const log = await open()
      const mistake = new Error('mine')
      log.follow(({ index }) => {
        if (index === 1) throw mistake
      })
      const told = follow(log)
      const surfaced = unhandledRejection(t)
      assert.deepEqual(await append(log, [batch('a'), batch('b')]), [1, 2])
      assert.deepEqual(keysOf(told), ['1 a', '2 b'])
      assert.equal(await surfaced, mistake)
    },
  )
}

function checkExpected(check: Check): void {
  check('a conditional append stores exactly if the newest index is the expected one', async ({ open }) => {
    const log = await open()
    assert.deepEqual(await append(log, [batch('a', 7)], { expected: 0 }), [7])
    assert.deepEqual(await append(log, [batch('b'), batch('c')], { expected: 7 }), [8, 9])
    for (const expected of [0, 7, 8, 10, Number.MAX_SAFE_INTEGER]) {
      await rejects(log.append([batch('d'), batch('e')], { expected }), 'INDEX_MISMATCH', { index: 9 })
    }
    assert.equal(log.last, 9)
    assert.deepEqual(keysOf(await readAll(log)), ['7 a', '8 b', '9 c'])
  })

  check(
    'of 20 appends at once that expect the same, the first wins and the others are told why not',
    async ({ open }) => {
      const log = await open()
      await append(log, [batch('a')])
      const outcomes = await Promise.allSettled(
        Array.from({ length: 20 }, (_, n) => log.append([batch(String(n))], { expected: 1 })),
      )
      const [first, ...others] = outcomes
      assert.deepEqual(first, { status: 'fulfilled', value: { indexes: [2], duplicate: false } })
      for (const other of others) {
        assert.ok(other.status === 'rejected')
        assert.deepEqual([other.reason.code, other.reason.index], ['INDEX_MISMATCH', 2])
      }
      assert.deepEqual(keysOf(await readAll(log)), ['1 a', '2 0'])
    },
  )

  check('an append without a condition is not held up by one that fails beside it', async ({ open }) => {
    const log = await open()
    const [wrong, plain, right] = await Promise.allSettled([
      log.append([batch('a')], { expected: 5 }),
      log.append([batch('b')]),
      log.append([batch('c')], { expected: 1 }),
    ])
    assert.deepEqual([wrong?.status, plain?.status, right?.status], ['rejected', 'fulfilled', 'fulfilled'])
    assert.deepEqual(keysOf(await readAll(log)), ['1 b', '2 c'])
  })
}

function checkKeys(check: Check): void {
  check('an append that is repeated under its key stores nothing and gives the first indexes', async ({ open }) => {
    const log = await open()
    const told = follow(log)
    const batches = () => [batch('a'), batch('b', 10), batch('c')]
    assert.deepEqual(await log.append(batches(), { key: 'k' }), { indexes: [1, 10, 11], duplicate: false })
    assert.deepEqual(await log.append(batches(), { key: 'k' }), { indexes: [1, 10, 11], duplicate: true })
    await append(log, [batch('d')])
    assert.deepEqual(await log.append(batches(), { key: 'k' }), { indexes: [1, 10, 11], duplicate: true })
    assert.deepEqual(await log.append([batch('d')], { key: 'K' }), { indexes: [13], duplicate: false })
    const expected = ['1 a', '10 b', '11 c', '12 d', '13 d']
    assert.deepEqual(keysOf(told), expected)
    assert.deepEqual(keysOf(await readAll(log)), expected)
  })

  check('appends under one key that are in flight at once store once', async ({ open }) => {
    const log = await open()
    const appends = [0, 1, 2, 3, 4].flatMap((n) => [
      log.append([batch('a'), batch('b')], { key: 'k' }),
      log.append([batch(String(n))]),
    ])
    const outcomes = await Promise.all(appends)
    assert.deepEqual(
      outcomes.filter((_, n) => n % 2 === 0),
      [false, true, true, true, true].map((duplicate) => ({ indexes: [1, 2], duplicate })),
    )
    assert.deepEqual(keysOf(await readAll(log)), ['1 a', '2 b', '3 0', '4 1', '5 2', '6 3', '7 4'])
  })

  check('a key that comes again with anything else is refused, also in flight', async ({ open }) => {
    const log = await open()
    const one = { topic: 'T', type: 't', key: 'a', payload: 1 }
    const [first, second] = await Promise.allSettled([
      log.append([encodeEvents([one])], { key: 'k' }),
      log.append([batch('other')], { key: 'k' }),
    ])
    assert.equal(first?.status, 'fulfilled')
    assert.equal(second?.status === 'rejected' && second.reason.code, 'KEY_REUSED')
    const others = [
      [encodeEvents([{ ...one, payload: '1' }])],
      [encodeEvents([{ ...one, key: 'b' }])],
      [encodeEvents([{ ...one, namespace: 'n' }])],
      [encodeEvents([{ ...one, filterKeys: ['f'] }])],
      [encodeEvents([one], 2)],
      [encodeEvents([one, one])],
      [encodeEvents([one]), encodeEvents([one])],
    ]
    for (const batches of others) await rejects(log.append(batches, { key: 'k' }), 'KEY_REUSED')
    assert.equal(log.last, 1)
    assert.deepEqual(keysOf(await readAll(log)), ['1 a'])
  })

  check('an append that was rejected does not use up its key', async ({ open }) => {
    const log = await open()
    await append(log, [batch('a')])
    await rejects(log.append([batch('b', 1)], { key: 'k' }), 'INDEX_ORDER')
    await rejects(log.append([batch('c')], { key: 'k', expected: 7 }), 'INDEX_MISMATCH', { index: 1 })
    assert.deepEqual(await log.append([batch('d')], { key: 'k' }), { indexes: [2], duplicate: false })
    await rejects(log.append([batch('b', 1)], { key: 'k' }), 'KEY_REUSED')
  })

  check('a conditional append that is repeated under its key gives its indexes, not a mismatch', async ({ open }) => {
    const log = await open()
    const options = { key: 'k', expected: 0 }
    assert.deepEqual(await log.append([batch('a')], options), { indexes: [1], duplicate: false })
    await append(log, [batch('b')])
    assert.deepEqual(await log.append([batch('a')], options), { indexes: [1], duplicate: true })
  })

  check(
    'a key is remembered longer than the batches that it named',
    async ({ open, reopen }) => {
      const log = await open({ capacity: 5 })
      for (let n = 1; n <= 100; n++) await log.append([batch(String(n))], { key: `k${n}` })
      await lookAt(log)
      assert.ok(log.floor >= 90)
      const again = await reopen(log)
      for (let n = 1; n <= 100; n++) {
        assert.deepEqual(await again.append([batch(String(n))], { key: `k${n}` }), { indexes: [n], duplicate: true })
      }
    },
    'keys of what is gone',
  )

  check('a key may be any text', async ({ open, reopen }) => {
    const log = await open()
    const keys = names.slice(1).map((name) => name.slice(0, 256))
    for (const [n, key] of keys.entries()) {
      assert.deepEqual(await log.append([batch('a')], { key }), { indexes: [n + 1], duplicate: false })
    }
    const again = await reopen(log)
    for (const [n, key] of keys.entries()) {
      assert.deepEqual(await again.append([batch('a')], { key }), { indexes: [n + 1], duplicate: true })
    }
  })
}

function checkStarts(check: Check): void {
  check('a start by time is right before the first batch stored at or after it', async ({ open, clock }) => {
    const log = await open()
    const time = clock.now()
    await append(log, [batch('a', 10)])
    await pass(clock, 100)
    await append(log, [batch('b'), batch('c')])
    await pass(clock, 100)
    await append(log, [batch('d', 20)])
    for (const [since, first] of [
      [0, 10],
      [time - 1, 10],
      [time, 10],
      [time + 1, 11],
      [time + 99, 11],
      [time + 100, 11],
      [time + 101, 20],
      [time + 200, 20],
      [time + 201, undefined],
      [Number.MAX_SAFE_INTEGER, undefined],
    ] as const) {
      assert.equal(await firstAfter(log, { since }), first, `since ${since - time}`)
    }
  })

  check('a start by number is right before the newest so many batches', async ({ open }) => {
    const log = await open()
    for (const index of [1, 2, 5, 6, 9]) await append(log, [batch('a', index)])
    const expected = [undefined, 9, 6, 5, 2, 1, 1]
    for (const [last, first] of expected.entries()) assert.equal(await firstAfter(log, { last }), first, `last ${last}`)
    assert.equal(await firstAfter(log, { last: Number.MAX_SAFE_INTEGER }), 1)
  })

  check('a start in a log without batches is its newest index', async ({ open, clock }) => {
    const log = await open()
    for (const start of [{ last: 0 }, { last: 5 }, { since: 0 }, { since: clock.now() }]) {
      assert.equal(await log.locate(start), 0)
    }
  })

  check('a start from before what is kept is the floor', async ({ open, clock }) => {
    const log = await open({ capacity: 10 })
    const time = clock.now()
    for (let n = 1; n <= 50; n++) {
      await append(log, [batch(String(n))])
      await pass(clock, 10)
    }
    const { floor } = log
    for (const since of [0, time, time + 10 * (floor - 1), time + 10 * floor]) {
      assert.equal(await log.locate({ since }), floor)
    }
    for (const last of [50 - floor, 50, 1000]) assert.equal(await log.locate({ last }), floor)
    assert.equal(await log.locate({ last: 3 }), 47)
    assert.equal(await log.locate({ since: time + 10 * 47 }), 47)
  })
}

function checkClosing(check: Check): void {
  check('a log that was closed stores nothing more, and may be closed again', async ({ open }) => {
    const log = await open()
    await append(log, [batch('a')])
    await log.close()
    await Promise.all([log.close(), log.close()])
    await rejects(log.append([batch('b')]), 'CLOSED')
    await rejects(log.append([batch('a')], { key: 'k' }), 'CLOSED')
    assert.deepEqual([log.floor, log.last], [0, 1])
    await worksOrCloses(async () => assert.deepEqual(keysOf(await readAll(log)), ['1 a']))
    await worksOrCloses(async () => assert.equal(await log.locate({ last: 1 }), 0))
  })

  check('closing a log drops nothing', async ({ open }) => {
    const log = await open({ capacity: 5 })
    for (let n = 0; n < 20; n++) await append(log, [batch('a')])
    const { floor, last } = log
    await log.close()
    assert.deepEqual([log.floor, log.last], [floor, last])
  })

  check('a follower may close the log, and others are still told what was accepted', async ({ open }) => {
    const log = await open()
    const before = follow(log)
    let closed: Promise<void> | undefined
    log.follow(() => {
      closed ??= log.close()
    })
    const after = follow(log)
    assert.deepEqual(await append(log, [batch('a'), batch('b')]), [1, 2])
    await closed
    assert.deepEqual(keysOf(before), ['1 a', '2 b'])
    assert.deepEqual(keysOf(after), ['1 a', '2 b'])
    await rejects(log.append([batch('c')]), 'CLOSED')
  })

  check('appends that are in flight when a log is closed are finished and told', async ({ open, reopen }) => {
    const log = await open()
    const told = follow(log)
    const appends = Array.from({ length: 20 }, (_, n) => append(log, [batch(String(n))]))
    const closed = log.close()
    const late = log.append([batch('late')])
    late.catch(() => {})
    assert.deepEqual(
      await Promise.all(appends),
      Array.from({ length: 20 }, (_, n) => [n + 1]),
    )
    await rejects(late, 'CLOSED')
    await closed
    const expected = Array.from({ length: 20 }, (_, n) => `${n + 1} ${n}`)
    assert.deepEqual(keysOf(told), expected)
    assert.equal(log.last, 20)
    const again = await reopen(log)
    if (again !== log) assert.deepEqual(keysOf(await readAll(again)), expected)
  })
}

function checkReopening(check: Check): void {
  check('a history goes on where it was when its log is opened again', async ({ open, reopen }) => {
    let log = await open()
    const { epoch } = log
    const expected: string[] = []
    for (let n = 0; n < 5; n++) {
      const wanted = log.last + 10
      assert.deepEqual(await append(log, [batch('a', wanted), batch('b')]), [wanted, wanted + 1])
      expected.push(`${wanted} a`, `${wanted + 1} b`)
      const { last } = log
      log = await reopen(log)
      assert.deepEqual([log.epoch, log.floor, log.last], [epoch, 0, last])
      assert.deepEqual(keysOf(await readAll(log)), expected)
      await rejects(log.append([batch('c', last)]), 'INDEX_ORDER')
    }
    assert.deepEqual(await append(log, [batch('d')]), [56])
  })

  check('a log without batches is opened again as it was', async ({ open, reopen }) => {
    const log = await open()
    const again = await reopen(log)
    assert.deepEqual([again.epoch, again.floor, again.last], [log.epoch, 0, 0])
    assert.deepEqual(await append(again, [batch('a')]), [1])
  })

  check('keys and the newest index count after it was opened again', async ({ open, reopen }) => {
    const log = await open()
    const batches = () => [batch('a'), batch('b', 10)]
    await log.append(batches(), { key: 'k' })
    const again = await reopen(log)
    assert.deepEqual(await again.append(batches(), { key: 'k' }), { indexes: [1, 10], duplicate: true })
    await rejects(again.append([batch('c')], { key: 'k' }), 'KEY_REUSED')
    await rejects(again.append([batch('c')], { expected: 1 }), 'INDEX_MISMATCH', { index: 10 })
    assert.deepEqual(await append(again, [batch('c')], { expected: 10 }), [11])
  })

  check(
    'what is kept stays the same when a log is opened again, and the limits go on from there',
    async ({ open, reopen }) => {
      const capacity = 20
      let log = await open({ capacity })
      let stored = 0
      for (let round = 0; round < 4; round++) {
        for (let n = 0; n < 15; n++) {
          await append(log, [batch('a')])
          checkCount(await readAll(log), log, capacity, ++stored)
        }
        const { floor } = log
        const kept = keysOf(await readAll(log))
        log = await reopen(log)
        assert.deepEqual([log.floor, keysOf(await readAll(log))], [floor, kept])
        assert.equal((await log.read(0, 1)).floor, floor)
      }
    },
  )

  check(
    'a log whose batches have all gone is opened again with its floor',
    async ({ open, reopen, clock }) => {
      const log = await open({ maxAge: 10_000 })
      await append(log, [batch('a'), batch('b', 7)])
      for (let n = 0; n < 1000 && log.floor < 7; n++) await pass(clock, 100)
      const again = await reopen(log)
      assert.deepEqual([again.epoch, again.floor, again.last], [log.epoch, 7, 7])
      assert.deepEqual(await append(again, [batch('c')]), [8])
    },
    'ages',
  )

  check(
    'ages and times count on when a log is opened again',
    async ({ open, reopen, clock }) => {
      const log = await open({ maxAge: 10_000 })
      const time = clock.now()
      await append(log, [batch('a')])
      await pass(clock, 6000)
      const again = await reopen(log)
      await append(again, [batch('b')])
      assert.equal(await firstAfter(again, { since: time }), 1)
      assert.equal(await firstAfter(again, { since: time + 1 }), 2)
      await pass(clock, 4200)
      await append(again, [batch('c')])
      assert.deepEqual([again.floor, keysOf(await readAll(again, 1))], [1, ['2 b', '3 c']])
    },
    'ages',
  )
}

function checkModel(check: Check, forgetsKeys: boolean): void {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 32))
  check(`300 random steps do what a list would do (SEED=${seed})`, async ({ open, reopen, clock }) => {
    const random = new Random(seed)
    const capacity = 20 + random.below(100)
    const model = new Model(capacity)
    let log = await open({ capacity })
    const told = follow(log)
    // A log may look for earlier keys when the first one is used, and no sooner.
    let isLooking = false
    for (let step = 0; step < 300; step++) {
      const at = `SEED=${seed}, step ${step}`
      await pass(clock, random.below(3))
      const batches = Array.from({ length: 1 + random.below(3) }, () =>
        batch(String(random.below(3)), random.oneIn(5) ? Math.max(1, model.last + random.below(6) - 1) : undefined),
      )
      const options = {
        key: random.oneIn(3) ? `key ${random.below(20)}` : undefined,
        expected: random.oneIn(4) ? Math.max(0, model.last - random.below(2)) : undefined,
      }
      if (isLooking) model.forgetKeys()
      if (options.key !== undefined) isLooking = false
      const expected = model.append(batches, options, clock.now())
      const got = await log.append(batches, options).catch(({ code, index }) => ({ code, index }))
      await lookAt(log)
      assert.deepEqual(got, expected, at)
      model.trim(log.floor)
      assert.deepEqual([log.last, model.isWithin], [model.last, true], at)
      const after = Math.max(log.floor, random.below(model.last + 3))
      assert.deepEqual(keysOf(await readAll(log, after, 1 + random.below(30))), model.after(after), at)
      const start = random.oneIn(2) ? { last: random.below(capacity + 10) } : { since: clock.now() - random.below(200) }
      assert.equal(await firstAfter(log, start), model.firstAfter(start), `${at} ${JSON.stringify(start)}`)
      if (!random.oneIn(20)) continue
      const again = await reopen(log)
      isLooking = forgetsKeys
      if (again !== log) again.follow((batch) => told.push(batch))
      log = again
      assert.deepEqual([log.floor, log.last], [model.floor, model.last], at)
    }
    assert.deepEqual(keysOf(told), model.stored, `SEED=${seed}`)
  })
}

/** A log as a list. It does not decide what goes: it is told, and says whether that was within the limit. */
class Model {
  readonly stored: string[] = []
  readonly #capacity: number
  readonly #keys = new Map<string, { content: string; indexes: readonly number[] }>()
  #kept: { index: number; text: string; time: number }[] = []
  last = 0
  floor = 0

  constructor(capacity: number) {
    this.#capacity = capacity
  }

  append(batches: readonly PendingBatch[], { key, expected }: AppendOptions, time: number): unknown {
    const content = JSON.stringify(batches)
    const first = key === undefined ? undefined : this.#keys.get(key)
    if (first && first.content !== content) return { code: 'KEY_REUSED', index: undefined }
    if (first) return { indexes: first.indexes, duplicate: true }
    if (expected !== undefined && expected !== this.last) return { code: 'INDEX_MISMATCH', index: this.last }
    const indexes: number[] = []
    for (const { index } of batches) {
      const before = indexes.at(-1) ?? this.last
      if (index !== undefined && index <= before) return { code: 'INDEX_ORDER', index: undefined }
      indexes.push(index ?? before + 1)
    }
    for (const [n, index] of indexes.entries()) {
      const text = `${index} ${batches[n]?.events[0]?.key}`
      this.#kept.push({ index, text, time })
      this.stored.push(text)
    }
    this.last = indexes.at(-1) ?? this.last
    if (key !== undefined) this.#keys.set(key, { content, indexes })
    return { indexes, duplicate: false }
  }

  trim(floor: number): void {
    assert.ok(floor >= this.floor, 'a floor never falls')
    this.floor = floor
    this.#kept = this.#kept.filter(({ index }) => index > floor)
  }

  /** Of batches that are gone. */
  forgetKeys(): void {
    for (const [key, { indexes }] of this.#keys) if ((indexes.at(-1) as number) <= this.floor) this.#keys.delete(key)
  }

  get isWithin(): boolean {
    const { length } = this.#kept
    return length >= Math.min(this.#capacity, this.stored.length) && length <= most(this.#capacity)
  }

  after(after: number): string[] {
    return this.#kept.filter(({ index }) => index > after).map(({ text }) => text)
  }

  firstAfter(start: LogStart): number | undefined {
    if ('since' in start) return this.#kept.find(({ time }) => time >= start.since)?.index
    return this.#kept.slice(Math.max(0, this.#kept.length - start.last))[0]?.index
  }
}

/** How many batches a log may keep whose limit is `capacity`. */
const most = (capacity: number): number => capacity + Math.floor(capacity / 64) + 1

/** Of `stored` batches, with indexes from 1 on, the newest are kept as a limit in batches says. */
function checkCount(kept: readonly StoredBatch[], log: Log, capacity: number, stored: number): void {
  const expected = Array.from({ length: stored - log.floor }, (_, n) => log.floor + n + 1)
  assert.deepEqual(indexesOf(kept), expected)
  assert.ok(kept.length >= Math.min(capacity, stored), `${kept.length} are kept, the limit is ${capacity}`)
  assert.ok(kept.length <= most(capacity), `${kept.length} are kept, the limit is ${capacity}`)
}

const batch = (key: string, index?: number): PendingBatch => encodeEvents([input(key, key)], index)

const input = (key: string, payload: unknown): EventInput => ({
  topic: `T${key.slice(0, 1000).replaceAll(':', '')}`,
  type: `t${key.slice(0, 1000)}`,
  key,
  namespace: key,
  filterKeys: key === '' ? [] : [key, '', key],
  payload,
})

async function append(log: Log, batches: readonly PendingBatch[], options: AppendOptions = {}): Promise<number[]> {
  const { indexes, duplicate } = await log.append(batches, options)
  assert.equal(duplicate, false)
  await lookAt(log)
  return [...indexes]
}

/** A log over an engine learns by reading what that has let go of. */
async function lookAt(log: Log): Promise<void> {
  await worksOrCloses(async () => void (await log.read(0, 1)))
}

/** Everything after `after`, page by page. Nothing of it may be gone. */
async function readAll(log: Log, after: number = log.floor, limit = 256): Promise<StoredBatch[]> {
  const all: StoredBatch[] = []
  for (let last = after; ; ) {
    const { floor, lost = 0, batches } = await log.read(last, limit)
    assert.ok(floor <= last && lost <= last, `batches after ${last} are gone: floor ${floor}, lost ${lost}`)
    assert.ok(batches.length <= limit, `${batches.length} came, ${limit} were asked for`)
    for (const [n, { index }] of batches.entries()) {
      assert.ok(index > (batches[n - 1]?.index ?? last), `a page after ${last} is not in order: ${indexesOf(batches)}`)
    }
    const newest = batches.at(-1)
    if (!newest) return all
    all.push(...batches)
    last = newest.index
  }
}

/** The index of the first batch that a reader gets who starts there. */
async function firstAfter(log: Log, start: LogStart): Promise<number | undefined> {
  const after = await log.locate(start)
  assert.ok(after >= log.floor && after <= log.last, `${after} is not from ${log.floor} to ${log.last}`)
  return (await log.read(after, 1)).batches[0]?.index
}

function follow(log: Log): StoredBatch[] {
  const told: StoredBatch[] = []
  log.follow((batch) => {
    assert.ok(log.last >= batch.index)
    told.push(batch)
  })
  return told
}

const indexesOf = (batches: readonly StoredBatch[]): number[] => batches.map(({ index }) => index)

const keysOf = (batches: readonly StoredBatch[]): string[] =>
  batches.map(({ index, events }) => `${index} ${events.map(({ key }) => key).join(' ')}`)

/** All that a reader can see of a batch, as plain values. */
function contentOf({ index, events }: Pick<StoredBatch, 'index' | 'events'>): unknown {
  return [
    index,
    ...events.map(({ topic, type, key, namespace, filterKeys, payloadText }) => {
      return { topic, type, key, namespace, filterKeys: [...filterKeys], payloadText }
    }),
  ]
}

function rejects(promise: Promise<unknown>, code: string, more: { index?: number } = {}): Promise<void> {
  return assert.rejects(promise, { name: 'SpillwayError', code, ...more })
}

async function worksOrCloses(use: () => Promise<void>): Promise<void> {
  await use().catch((error) => {
    if (error?.code !== 'CLOSED') throw error
  })
}

/** The next error that nobody handles; the test runner would take it for a failure of the test. */
function unhandledRejection(t: TestContext): Promise<unknown> {
  return new Promise((resolve) => {
    const listeners = process.listeners('unhandledRejection')
    process.removeAllListeners('unhandledRejection')
    process.once('unhandledRejection', resolve)
    t.after(() => {
      process.removeListener('unhandledRejection', resolve)
      for (const listener of listeners) process.on('unhandledRejection', listener)
    })
  })
}

/** Lets everything happen that is ready to. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** Lets time pass in an instant, and then what waited for it happen. */
async function pass(clock: TestClock, ms: number): Promise<void> {
  await turn()
  clock.advance(ms)
  await turn()
}

/** Stands still until it is moved. */
class TestClock implements Clock {
  #now = 1_700_000_000_000
  #timers: { readonly at: number; readonly callback: () => void }[] = []

  now(): number {
    return this.#now
  }

  monotonic(): number {
    return this.#now
  }

  after(ms: number, callback: () => void): () => void {
    const timer = { at: this.#now + ms, callback }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer)
    }
  }

  defer(callback: () => void): void {
    setImmediate(callback)
  }

  advance(ms: number): void {
    this.#now += ms
    const due = this.#timers.filter(({ at }) => at <= this.#now)
    this.#timers = this.#timers.filter((timer) => !due.includes(timer))
    for (const { callback } of due) callback()
  }
}
