import assert from 'node:assert/strict'
import { copyFileSync, existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import type { DatabaseSync } from 'node:sqlite'
import { type TestContext, test } from 'node:test'
import { encodeBatch } from '../../src/core/batch-text.ts'
import { createBroker } from '../../src/core/broker.ts'
import { SpillwayError } from '../../src/core/errors.ts'
import type { Reader } from '../../src/log/sqlite/reader.ts'
import type { Job, Opened, WriterOptions } from '../../src/log/sqlite/writer.ts'
import { type SqliteLog, sqliteLog } from '../../src/log/sqlite.ts'
import { logPath, noSqlite, numberedTexts } from '../support/log-files.ts'
import { type Random, seededRandom } from '../support/random.ts'
import { withCode } from '../support/waiting.ts'

// The classes behind the two threads of a log, used without the threads: thousands of damaged files in some seconds.
async function classes() {
  const [{ Writer }, { Reader }] = await Promise.all([
    import('../../src/log/sqlite/writer.ts'),
    import('../../src/log/sqlite/reader.ts'),
  ])
  return { Writer, Reader }
}

const files = ['', '-wal', '-mark'] as const
type File = (typeof files)[number]

/** A log that was acknowledged up to index `last`, as its files are at a moment. */
interface Image {
  readonly files: ReadonlyMap<File, Buffer>
  readonly epoch: string
  /** The text of each batch, by index from 1 on. */
  readonly texts: readonly string[]
  /** The indexes of each append, by its key. */
  readonly keys: ReadonlyMap<string, readonly number[]>
}

const limits = {
  capacity: Number.POSITIVE_INFINITY,
  maxBytes: Number.POSITIVE_INFINITY,
  maxAge: Number.POSITIVE_INFINITY,
} as const
const batchCount = 300
const pageSize = 4096
const now = 1_700_000_000_000

function optionsFor(path: string): WriterOptions {
  return { path, durability: 'power', ...limits }
}

function job(n: number, digest = n): Job {
  return { batches: numberedTexts(n).map((text) => ({ text })), key: `k${n}`, digest, expected: undefined }
}

/** A log of 300 batches: 100 in the main file and the others not, if it is open; or all in the main file. */
async function imageOf(t: TestContext, state: 'open' | 'closed'): Promise<Image> {
  const { Writer } = await classes()
  const path = await logPath(t, { inMemory: true })
  const texts: string[] = []
  const keys = new Map<string, readonly number[]>()
  let writer = new Writer(optionsFor(path))
  let n = 0
  const fill = (count: number): void => {
    while (texts.length < count) {
      const jobs = Array.from({ length: 1 + (n % 11) }, () => job(++n))
      for (const [m, outcome] of writer.commit(jobs, now + n).entries()) {
        assert.ok('indexes' in outcome)
        const { batches, key } = jobs[m] as Job
        texts.push(...batches.map(({ text }) => text))
        assert.equal(outcome.indexes.at(-1), texts.length)
        keys.set(key as string, outcome.indexes)
      }
    }
  }
  fill(batchCount / 3)
  writer.close()
  writer = new Writer(optionsFor(path))
  fill(batchCount)
  if (state === 'closed') writer.close()
  const read = files.filter((file) => existsSync(path + file)).map((file) => [file, readFileSync(path + file)] as const)
  if (state === 'open') writer.close()
  return { files: new Map(read), epoch: writer.opened.epoch, texts, keys }
}

/** What a reader was told, which must be all that was acknowledged, batch by batch or as a gap. */
class Told {
  readonly #texts: readonly string[]
  #index = 0
  readonly gaps: { after: number; before: number }[] = []

  constructor(texts: readonly string[]) {
    this.#texts = texts
  }

  get index(): number {
    return this.#index
  }

  batch(index: number, text: string): void {
    assert.equal(index, this.#index + 1, `after ${this.#index} comes ${index}, and no gap was told`)
    assert.ok(index <= this.#texts.length, `${index} was never written`)
    assert.equal(text, this.#texts[index - 1], `the content of ${index}`)
    this.#index = index
  }

  gap(after: number, before: number): void {
    assert.equal(after, this.#index)
    assert.ok(before > after + 1, `a gap from ${after} to ${before}`)
    assert.ok(before <= this.#texts.length + 1, `a gap up to ${before} of ${this.#texts.length} batches`)
    this.gaps.push({ after, before })
    this.#index = before - 1
  }

  end(): void {
    assert.equal(this.#index, this.#texts.length, 'everything up to here was delivered or told as lost')
  }

  get lost(): number {
    return this.gaps.reduce((sum, { after, before }) => sum + before - after - 1, 0)
  }
}

const bulk = { skip: noSqlite, timeout: 400_000 }

type Refusal = Extract<SpillwayError['code'], `LOG_${string}`>

/** What `use` gives, or the code of an error that is among `codes`. */
function attempt<T>(use: () => T, ...codes: Refusal[]): T | Refusal {
  try {
    return use()
  } catch (error) {
    return refusal(error, codes)
  }
}

function refusal(error: unknown, codes: readonly Refusal[]): Refusal {
  if (error instanceof SpillwayError && codes.includes(error.code as Refusal)) return error.code as Refusal
  throw error
}

/** Reads page after page to the end. */
function readAll(reader: Reader, texts: readonly string[], limit: number): Told {
  const told = new Told(texts)
  for (;;) {
    const after = told.index
    const { floor, lost, rows } = reader.read(after, limit, 2 ** 20, texts.length)
    assert.equal(floor, 0)
    if (lost > after) told.gap(after, rows[0]?.idx ?? lost + 1)
    for (const { idx, data } of rows) told.batch(idx, Buffer.from(data).toString())
    if (told.index === after) break
  }
  told.end()
  return told
}

/** Damages a copy of a log at `path`. Says what it did. */
type Damage = (path: string) => string

function write(image: Image, path: string): void {
  for (const file of [...files, '-shm', '-lock', '-new']) rmSync(path + file, { force: true })
  for (const [file, bytes] of image.files) writeFileSync(path + file, bytes)
}

function truncate(file: File, size: number): Damage {
  return (path) => {
    truncateSync(path + file, size)
    return `'${file}' cut to ${size} bytes`
  }
}

function flip(file: File, position: number, bit: number): Damage {
  return (path) => {
    const bytes = readFileSync(path + file)
    bytes[position] = (bytes[position] as number) ^ (1 << bit)
    writeFileSync(path + file, bytes)
    return `'${file}' bit ${bit} of byte ${position} flipped`
  }
}

function remove(file: File): Damage {
  return (path) => {
    rmSync(path + file)
    return `'${file}' removed`
  }
}

/** Whether SQLite finds its own structure whole, and what it says of the tables, whatever the rows say. Looked at in a copy: looking moves the journal. */
async function isSound(path: string, copy: string): Promise<boolean> {
  const { DatabaseSync } = await import('node:sqlite')
  for (const file of ['', '-wal', '-shm']) {
    rmSync(copy + file, { force: true })
    if (existsSync(path + file)) copyFileSync(path + file, copy + file)
  }
  const { checkSchema } = await import('../../src/log/sqlite/table.ts')
  let db: DatabaseSync | undefined
  try {
    db = new DatabaseSync(copy)
    checkSchema(db)
    return db.prepare('PRAGMA integrity_check').get()?.integrity_check === 'ok'
  } catch {
    return false
  } finally {
    db?.close()
  }
}

function flips(random: Random, image: Image, file: File, count: number, below?: number): Damage[] {
  const { length } = image.files.get(file) as Buffer
  return Array.from({ length: count }, () => flip(file, random.below(below ?? length), random.below(8)))
}

function cuts(random: Random, image: Image, file: File, step: number, count: number): Damage[] {
  const { length } = image.files.get(file) as Buffer
  const steps = Array.from({ length: Math.ceil(length / step) }, (_, n) => truncate(file, n * step))
  return [...steps, ...Array.from({ length: count }, () => truncate(file, random.below(length)))]
}

interface Tally {
  [outcome: string]: number
}

/** Opens, reads, appends and opens again after each of `damages`, and throws what went wrong, named. Counts what became of them. */
async function survive(t: TestContext, random: Random, image: Image, damages: readonly Damage[]): Promise<Tally> {
  const { Writer, Reader } = await classes()
  const { readMark } = await import('../../src/log/sqlite/mark.ts')
  const path = await logPath(t, { inMemory: true })
  const copy = await logPath(t, { inMemory: true })
  const tally: Tally = {}
  const count = (outcome: string): void => {
    tally[outcome] = (tally[outcome] ?? 0) + 1
  }
  const failures: string[] = []
  const began = performance.now()
  for (const [n, damage] of damages.entries()) {
    write(image, path)
    const what = damage(path)
    try {
      count(surviveOne(what, await isSound(path, copy)))
    } catch (error) {
      failures.push(`${what}: ${(error as Error).message}`)
    }
    // What could not be opened is let go by the collector only.
    if (n % 100 === 0) globalThis.gc?.()
  }
  const seconds = Math.round((performance.now() - began) / 100) / 10
  console.log(JSON.stringify({ ...tally, seconds }))
  assert.deepEqual(failures.slice(0, 20), [], `${failures.length} of ${damages.length}`)
  return tally

  function surviveOne(what: string, hasSoundStructure: boolean): string {
    const before = readFileSync(path)
    const hasMark = readMark(`${path}-mark`) !== undefined
    const writer = attempt(() => new Writer(optionsFor(path)), 'LOG_CORRUPT', 'LOG_UNUSABLE')
    if (typeof writer === 'string') {
      checkRefusal(writer, what)
      assert.ok(before.equals(readFileSync(path)), 'a file that was refused is as it was')
      return `refused with ${writer}`
    }
    const readers: Reader[] = []
    let isOpen = true
    try {
      const { epoch, floor, last } = writer.opened
      // Without a mark nobody can say that it is not an old copy.
      assert.equal(epoch === image.epoch, hasMark)
      assert.equal(floor, 0)
      assert.ok(last >= image.texts.length, `opened at ${last}`)
      assert.equal(last, image.texts.length, 'no index is left out')
      const opened = attempt(() => new Reader(path), 'LOG_CORRUPT')
      if (typeof opened === 'string') return `read refused with ${opened}`
      readers.push(opened)
      const told = attempt(() => readAll(opened, image.texts, random.pick([1, 10, 64, 256])), 'LOG_CORRUPT')
      const read = outcomeOf(told)
      if (typeof told !== 'string') checkLoss(told, writer.opened, hasSoundStructure)
      // A key that is still known gives the indexes of then, and never others.
      const key = random.pick([...image.keys.keys()])
      const repeated = attempt(() => writer.commit([job(Number(key.slice(1)))], now)[0], 'LOG_FAILED')
      if (typeof repeated === 'string') return `${read}, append refused with ${repeated}`
      assert.ok(repeated && 'indexes' in repeated, JSON.stringify(repeated))
      const texts = [...image.texts]
      if (repeated.duplicate) assert.deepEqual(repeated.indexes, image.keys.get(key))
      else appended(texts, repeated.indexes, numberedTexts(Number(key.slice(1))))
      const added = attempt(() => writer.commit([job(1_000_000 + random.below(1000))], now)[0], 'LOG_FAILED')
      if (typeof added === 'string') return `${read}, append refused with ${added}`
      assert.ok(added && 'indexes' in added && !added.duplicate, JSON.stringify(added))
      appended(texts, added.indexes, readTexts(opened, added.indexes))
      const again = attempt(() => readAll(opened, texts, random.pick([1, 10, 64, 256])), 'LOG_CORRUPT')
      // Where SQLite's own structure is damaged, searches may miss what is there: more or less is told as lost then.
      if (hasSoundStructure) sameLoss(told, again)
      // Sooner or later it is opened once more, and says the same.
      if (!random.oneIn(3)) return read
      writer.close()
      isOpen = false
      const second = attempt(() => new Writer(optionsFor(path)), 'LOG_CORRUPT')
      if (typeof second === 'string') return `${read}, refused with ${second} later`
      assert.deepEqual([second.opened.last, second.opened.lost], [texts.length, undefined])
      second.close()
      const later = new Reader(path)
      readers.push(later)
      const third = attempt(() => readAll(later, texts, random.pick([1, 10, 64, 256])), 'LOG_CORRUPT')
      if (hasSoundStructure) sameLoss(told, third)
      return read
    } finally {
      for (const reader of readers) reader.close()
      if (isOpen) writer.close()
    }
  }

  function outcomeOf(told: Told | Refusal): string {
    if (typeof told === 'string') return `read refused with ${told}`
    return told.lost > 0 ? 'read with gaps' : 'read whole'
  }

  function checkLoss(told: Told, { lost }: Opened, hasSoundStructure: boolean): void {
    if (hasSoundStructure && !image.files.has('-wal')) {
      assert.ok(told.lost <= 1, `one bit costs one batch at the most, not ${told.lost}`)
    }
    if (lost) assert.deepEqual(told.gaps.at(-1), { after: lost.after, before: lost.last + 1 })
  }

  function checkRefusal(code: Refusal, what: string): void {
    if (code === 'LOG_CORRUPT') return
    // The first page has the header and what the tables are called.
    const position = /^'' (?:cut to|bit . of byte) (\d+)/.exec(what)?.[1]
    assert.ok(position && Number(position) < pageSize, `refused with ${code}`)
  }

  function appended(texts: string[], indexes: readonly number[], added: readonly string[]): void {
    for (const [n, index] of indexes.entries()) {
      assert.equal(index, texts.length + 1, 'what is appended stands above all that was acknowledged')
      texts.push(added[n] as string)
    }
  }

  function readTexts(reader: Reader, indexes: readonly number[]): string[] {
    const { rows } = reader.read((indexes[0] as number) - 1, 10, 2 ** 20, indexes.at(-1) as number)
    assert.deepEqual(
      rows.map(({ idx }) => idx),
      indexes,
      'what was appended is readable',
    )
    return rows.map(({ data }) => Buffer.from(data).toString())
  }

  function sameLoss(told: Told | Refusal, again: Told | Refusal): void {
    if (typeof told === 'string' || typeof again === 'string') assert.equal(again, told)
    else assert.equal(again.lost, told.lost, 'the loss stays as it was told')
  }
}

test('D2: a journal that is cut anywhere loses what is told as lost, and nothing else', bulk, async (t) => {
  const random = seededRandom('journal cut')
  const image = await imageOf(t, 'open')
  const tally = await survive(t, random, image, [...cuts(random, image, '-wal', 512, 100), remove('-wal')])
  assert.ok((tally['read with gaps'] ?? 0) > 1000)
})

test('D2: a bit that flips in the journal never makes another batch', bulk, async (t) => {
  const random = seededRandom('bit of the journal')
  const image = await imageOf(t, 'open')
  const header = flips(random, image, '-wal', 100, 32)
  const tally = await survive(t, random, image, [...flips(random, image, '-wal', 300), ...header])
  assert.ok((tally['read with gaps'] ?? 0) > 300)
})

test('D2: a bit that flips in the file is refused or told, and never makes another batch', bulk, async (t) => {
  const random = seededRandom('bit of the file')
  const image = await imageOf(t, 'closed')
  assert.ok(!image.files.has('-wal'))
  const firstPages = [...flips(random, image, '', 200, 100), ...flips(random, image, '', 200, 4 * pageSize)]
  const tally = await survive(t, random, image, [...flips(random, image, '', 300), ...firstPages])
  assert.ok((tally['read with gaps'] ?? 0) > 100)
})

test('D2: a bit that flips in what stands before a batch in its row is refused or told', bulk, async (t) => {
  const random = seededRandom('bit of the head of a row')
  const image = await imageOf(t, 'closed')
  const bytes = image.files.get('') as Buffer
  const newest = image.texts.length - 1
  const damages = Array.from({ length: 200 }, (_, n) => {
    const text = image.texts[n < 100 ? newest : random.below(newest)] as string
    return flip('', bytes.indexOf(text.slice(0, 60)) - 1 - random.below(40), random.below(8))
  })
  await survive(t, random, image, damages)
})

test('D2: a damaged row takes no other with it when old batches go, nor keeps them', bulk, async (t) => {
  const { Writer, Reader } = await classes()
  const random = seededRandom('damaged rows among the oldest')
  const image = await imageOf(t, 'closed')
  const bytes = image.files.get('') as Buffer
  const path = await logPath(t, { inMemory: true })
  const capacity = 250
  let tried = 0
  for (let n = 0; n < 100; n++) {
    write(image, path)
    const text = image.texts[random.below(40)] as string
    const what = flip('', bytes.indexOf(text.slice(0, 60)) - 1 - random.below(40), random.below(8))(path)
    const writer = attempt(() => new Writer({ ...optionsFor(path), capacity }), 'LOG_CORRUPT')
    if (typeof writer === 'string') continue
    const told = new Told([...image.texts])
    try {
      const outcomes = attempt(() => writer.commit([job(2_000_000)], now), 'LOG_FAILED')
      if (typeof outcomes === 'string') continue
      const { floor, last } = writer.bounds
      assert.ok(Math.abs(last - capacity - floor) <= 1, `${what}: the floor is ${floor}`)
      const reader = new Reader(path)
      const { rows } = reader.read(floor, 300, 2 ** 24, last)
      reader.close()
      tried++
      if (rows.length < 300) told.gap(0, rows[0]?.idx as number)
      for (const { idx, data } of rows) if (idx <= image.texts.length) told.batch(idx, data)
      assert.equal(told.index, image.texts.length, what)
      assert.ok((rows[0]?.idx as number) <= floor + 3, `${what}: the first is ${rows[0]?.idx}, the floor ${floor}`)
    } finally {
      writer.close()
    }
  }
  assert.ok(tried > 50, `${tried} of 100 could be opened and written to`)
})

test('D2: a bit that flips in the file beside a journal is refused or told', bulk, async (t) => {
  const random = seededRandom('bit of the file beside a journal')
  const image = await imageOf(t, 'open')
  await survive(t, random, image, flips(random, image, '', 200))
})

test('D2: a file that is cut is refused or told', bulk, async (t) => {
  const random = seededRandom('file cut')
  const image = await imageOf(t, 'closed')
  await survive(t, random, image, cuts(random, image, '', 2048, 200))
})

test('D2: a damaged log that is looked at shows each batch that is whole, and names what is not', bulk, async (t) => {
  const { openFile } = await import('../../src/log/sqlite/file.ts')
  const random = seededRandom('looked at')
  const open = await imageOf(t, 'open')
  const closed = await imageOf(t, 'closed')
  const path = await logPath(t, { inMemory: true })
  const copy = await logPath(t, { inMemory: true })
  const cases: [Image, Damage][] = [
    ...cuts(random, open, '-wal', 16_384, 50).map((damage): [Image, Damage] => [open, damage]),
    ...flips(random, open, '-wal', 50).map((damage): [Image, Damage] => [open, damage]),
    ...flips(random, closed, '', 300).map((damage): [Image, Damage] => [closed, damage]),
    ...flips(random, closed, '', 100, 4 * pageSize).map((damage): [Image, Damage] => [closed, damage]),
  ]
  const tally: Tally = {}
  const look = (image: Image, hasSoundStructure: boolean): string => {
    const file = attempt(() => openFile(path), 'LOG_CORRUPT', 'LOG_UNUSABLE')
    if (typeof file === 'string') return file
    const told = new Told(image.texts)
    try {
      for (const part of file.parts()) {
        if ('batches' in part) for (const { index, events } of part.batches) told.batch(index, encodeBatch(events))
        else if ('lost' in part) told.gap(part.lost.after, part.lost.before ?? image.texts.length + 1)
        else assert.fail('nothing was removed')
      }
    } finally {
      file.close()
    }
    if (file.last !== undefined) assert.equal(file.last, image.texts.length)
    told.end()
    if (hasSoundStructure && !image.files.has('-wal')) assert.ok(told.lost <= 1, `lost ${told.lost}`)
    return told.lost > 0 ? 'gaps' : 'whole'
  }
  const failures: string[] = []
  for (const [image, damage] of cases) {
    write(image, path)
    const what = damage(path)
    try {
      const outcome = look(image, await isSound(path, copy))
      tally[outcome] = (tally[outcome] ?? 0) + 1
    } catch (error) {
      failures.push(`${what}: ${(error as Error).stack}`)
    }
  }
  console.log(JSON.stringify(tally))
  assert.deepEqual(failures.slice(0, 20), [], `${failures.length} of ${cases.length}`)
  assert.ok((tally.gaps ?? 0) > 100)
})

test('a mark that is damaged or gone loses nothing; without one the epoch is new', bulk, async (t) => {
  const random = seededRandom('mark')
  for (const state of ['open', 'closed'] as const) {
    const image = await imageOf(t, state)
    const damages = [...cuts(random, image, '-mark', 64, 20), remove('-mark'), ...flips(random, image, '-mark', 100)]
    assert.deepEqual(await survive(t, random, image, damages), { 'read whole': damages.length })
  }
})

/** As a reader of the broker has it. */
async function subscribeAll(log: SqliteLog, texts: readonly string[]): Promise<Told> {
  const told = new Told(texts)
  const broker = createBroker({ log, capacity: 10 })
  const reader = broker.subscribe({ from: 0, onLag: 'skip' })
  while (told.index < log.last) {
    const { index, gap, events } = await reader.next({ signal: AbortSignal.timeout(15_000) })
    if (gap) {
      assert.equal(gap.reason, 'corrupt')
      told.gap(gap.after, gap.before)
    } else told.batch(index, encodedAgain(events))
  }
  told.end()
  return told
}

function encodedAgain(events: readonly { payload: unknown }[]): string {
  const { append, position } = (events[0] as { payload: unknown }).payload as { append: number; position: number }
  const text = numberedTexts(append)[position] as string
  const payloads = text.split('\x1e').map((event) => JSON.parse(event.split('\x1f')[4] as string))
  assert.deepEqual(
    events.map(({ payload }) => payload),
    payloads,
  )
  return text
}

test('D2: subscribers of a damaged log get each batch that is whole and are told the others', bulk, async (t) => {
  const random = seededRandom('subscribers of a damaged log')
  const open = await imageOf(t, 'open')
  const closed = await imageOf(t, 'closed')
  const path = await logPath(t, { inMemory: true })
  const wal = open.files.get('-wal') as Buffer
  const cases: [Image, Damage][] = [
    [open, remove('-wal')],
    ...Array.from({ length: 15 }, (): [Image, Damage] => [open, truncate('-wal', random.below(wal.length))]),
    ...flips(random, open, '-wal', 10).map((damage): [Image, Damage] => [open, damage]),
    ...flips(random, closed, '', 30).map((damage): [Image, Damage] => [closed, damage]),
  ]
  const tally: Tally = {}
  for (const [image, damage] of cases) {
    write(image, path)
    const what = damage(path)
    let outcome: string
    let log: SqliteLog | undefined
    try {
      log = await sqliteLog({ path })
      const told = await subscribeAll(log, image.texts)
      outcome = told.lost > 0 ? 'gaps' : 'whole'
    } catch (error) {
      try {
        outcome = refusal(error, ['LOG_CORRUPT', 'LOG_UNUSABLE'])
      } catch (cause) {
        throw new Error(what, { cause })
      }
    }
    await log?.close()
    tally[outcome] = (tally[outcome] ?? 0) + 1
  }
  console.log(JSON.stringify(tally))
  assert.ok((tally.gaps ?? 0) > 20)
})

test('a log that is refused as damaged keeps its files as they are, journal and all', { skip: noSqlite }, async (t) => {
  const image = await imageOf(t, 'open')
  const path = await logPath(t, { inMemory: true })
  write(image, path)
  const bytes = image.files.get('') as Buffer
  flip('', bytes.indexOf(image.epoch), 0)(path)
  const before = files.map((file) => readFileSync(path + file))
  await assert.rejects(sqliteLog({ path }), withCode('LOG_CORRUPT'))
  // Its thread ends after the answer; a second one that is refused shows that the first has let go.
  await assert.rejects(sqliteLog({ path }), withCode('LOG_CORRUPT'))
  for (const [n, file] of files.entries()) {
    assert.ok(existsSync(path + file) && before[n]?.equals(readFileSync(path + file)), `'${file}' is as it was`)
  }
})
