import assert from 'node:assert/strict'
import { copyFileSync } from 'node:fs'
import { type TestContext, test } from 'node:test'
import type { Job, Outcome, Writer, WriterOptions } from '../../src/log/sqlite/writer.ts'
import { logPath, noSqlite } from '../support/log-files.ts'
import { type Random, seededRandom } from '../support/random.ts'

const runs = 40
const stepsPerRun = 150

type Limits = Omit<WriterOptions, 'path'>

interface Stored {
  readonly index: number
  readonly time: number
  readonly text: string
}

/** What a log must hold: all that was stored, of which it keeps what is above its floor. */
class Model {
  readonly all: Stored[] = []
  readonly keys = new Map<string, { digest: number; indexes: readonly number[] }>()
  floor = 0

  get last(): number {
    return this.all.at(-1)?.index ?? 0
  }

  get kept(): Stored[] {
    return this.all.filter(({ index }) => index > this.floor)
  }

  /** The indexes that the batches of a job must get, or the code of its error. */
  store({ batches, key, digest, expected }: Job, now: number): readonly number[] | string {
    const known = key === undefined ? undefined : this.keys.get(key)
    if (known) return known.digest === digest ? known.indexes : 'KEY_REUSED'
    if (expected !== undefined && expected !== this.last) return 'INDEX_MISMATCH'
    const indexes: number[] = []
    for (const { index } of batches) {
      const last = indexes.at(-1) ?? this.last
      if (index !== undefined && index <= last) return 'INDEX_ORDER'
      indexes.push(index ?? last + 1)
    }
    for (const [n, { text }] of batches.entries()) {
      const time = Math.max(this.all.at(-1)?.time ?? 0, now)
      this.all.push({ index: indexes[n] as number, time, text })
    }
    if (key !== undefined) this.keys.set(key, { digest, indexes })
    return indexes
  }

  /** Checks that a floor removes all that a limit says, up to a 64th late, and nothing else. */
  moveFloor(floor: number, now: number, { capacity, maxBytes, maxAge }: Limits): void {
    assert.ok(floor >= this.floor, `the floor falls from ${this.floor} to ${floor}`)
    const newest = this.all.find(({ index }) => index === floor)
    const removedNow = floor > this.floor
    this.floor = floor
    const { kept } = this
    const bytes = sizeOf(kept)
    assert.ok(kept.length <= capacity + capacity / 64, `${kept.length} batches are kept`)
    assert.ok(bytes <= maxBytes + maxBytes / 64, `${bytes} bytes are kept`)
    assert.ok(
      kept.every(({ time }) => now - time <= maxAge),
      'none is kept that is too old',
    )
    if (!removedNow) return
    assert.ok(newest, `the floor ${floor} is the index of a batch`)
    const isExcess = kept.length + 1 > capacity || bytes + sizeOf([newest]) > maxBytes
    assert.ok(isExcess || now - newest.time > maxAge, `${floor} had to go`)
  }

  page(after: number, limit: number): Stored[] {
    return this.kept.filter(({ index }) => index > after).slice(0, limit)
  }

  /** The newest that is kept and `isBefore`. */
  before(isBefore: (batch: Stored, age: number) => boolean): number {
    const { kept } = this
    return kept.findLast((batch, n) => isBefore(batch, kept.length - n))?.index ?? this.floor
  }
}

function sizeOf(batches: readonly Stored[]): number {
  return batches.reduce((sum, { text }) => sum + Buffer.byteLength(text), 0)
}

function limits(random: Random): Limits {
  const unlimited = Number.POSITIVE_INFINITY
  return {
    durability: 'power',
    capacity: random.pick([unlimited, 3, 20, 200]),
    maxBytes: random.pick([unlimited, 2000, 50_000]),
    maxAge: random.pick([unlimited, unlimited, 10_000]),
  }
}

function randomJob(random: Random, model: Model, n: number): Job {
  const batches = Array.from({ length: 1 + random.below(3) }, (_, m) => {
    const text = `${n}.${m} ${'é'.repeat(random.below(random.oneIn(10) ? 300 : 20))}`
    return random.oneIn(8) ? { text, index: Math.max(1, model.last - 1 + random.below(20)) } : { text }
  })
  const known = [...model.keys.keys()]
  const key = random.oneIn(6) && known.length > 0 ? random.pick(known) : random.oneIn(3) ? `k${n}` : undefined
  const digest = (key !== undefined && random.oneIn(3) ? undefined : model.keys.get(key ?? '')?.digest) ?? n
  const expected = random.oneIn(5) ? model.last - random.below(2) : undefined
  return { batches, key, digest, expected }
}

function answerOf(outcome: Outcome | undefined): readonly number[] | string | undefined {
  return outcome && ('code' in outcome ? outcome.code : outcome.indexes)
}

test('after any commits, ages, reads, restarts and kills a log on disk holds, gives and forgets what a model says', {
  skip: noSqlite,
  timeout: 120_000,
}, async (t) => {
  const random = seededRandom('log against a model')
  const done: Record<string, number> = {}
  for (let run = 0; run < runs; run++) await runOne(t, random, done)
  console.log(JSON.stringify(done))
  for (const what of ['commit', 'read', 'locate', 'wait', 'restart', 'kill', 'removed', 'duplicate', 'refused']) {
    assert.ok((done[what] ?? 0) > 100, `${what}: ${done[what]}`)
  }
})

async function runOne(t: TestContext, random: Random, done: Record<string, number>): Promise<void> {
  const [{ Writer }, { Reader }] = await Promise.all([
    import('../../src/log/sqlite/writer.ts'),
    import('../../src/log/sqlite/reader.ts'),
  ])
  const options = limits(random)
  const model = new Model()
  let path = await logPath(t, { inMemory: true })
  let now = 1_700_000_000_000
  let writer: Writer = new Writer({ ...options, path })
  let reader = new Reader(path)
  const { epoch } = writer.opened
  const count = (what: string, by = 1): void => {
    done[what] = (done[what] ?? 0) + by
  }
  const open = (): void => {
    writer = new Writer({ ...options, path })
    reader = new Reader(path)
    const { time: _time, ...opened } = writer.opened
    assert.deepEqual(opened, { epoch, floor: model.floor, last: model.last, lost: undefined })
  }
  const close = (): void => {
    reader.close()
    writer.close()
  }
  const steps: Record<string, () => void | Promise<void>> = {
    commit() {
      const before = model.floor
      const jobs = Array.from({ length: random.below(4) }, (_, n) =>
        randomJob(random, model, model.all.length * 10 + n),
      )
      // One after the other, as the model must see the one before.
      const wanted = jobs.map((job) => model.store(job, now))
      const outcomes = writer.commit(jobs, now)
      assert.deepEqual(outcomes.map(answerOf), wanted)
      count('duplicate', outcomes.filter((one) => 'indexes' in one && one.duplicate).length)
      count('refused', wanted.filter((one) => typeof one === 'string').length)
      assert.equal(writer.bounds.last, model.last)
      model.moveFloor(writer.bounds.floor, now, options)
      count('removed', model.floor - before)
    },
    read() {
      const after = random.below(model.last + 3)
      const limit = random.pick([1, 7, 500])
      const { floor, lost, rows } = reader.read(after, limit, 2 ** 20, model.last)
      const wanted = model.page(after, limit)
      assert.deepEqual(
        rows.map(({ idx, time, data }) => ({ index: idx, time, text: data })),
        wanted,
      )
      assert.deepEqual([floor, lost], [model.floor, 0])
    },
    locate() {
      const last = random.below(30)
      assert.equal(
        reader.locate({ last }),
        model.before((_, age) => age > last),
      )
      const since = now - random.below(20_000)
      assert.equal(
        reader.locate({ since }),
        model.before(({ time }) => time < since),
      )
    },
    wait() {
      // Also backwards: what is stored never is.
      now += random.oneIn(10) ? -random.below(5000) : random.below(3000)
    },
    restart() {
      close()
      open()
    },
    async kill() {
      const copy = await logPath(t, { inMemory: true })
      for (const end of ['', '-wal', '-mark']) copyFileSync(path + end, copy + end)
      close()
      path = copy
      open()
    },
  }
  const often = ['commit', 'commit', 'commit', 'commit', 'read', 'read', 'locate', 'wait', 'restart', 'kill']
  for (let step = 0; step < stepsPerRun; step++) {
    const name = random.pick(often)
    count(name)
    await steps[name]?.()
  }
  close()
}
