import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { type Broker, createBroker } from '../../src/core/broker.ts'
import { EventBuffer } from '../../src/core/buffer.ts'
import { SpillwayError } from '../../src/core/errors.ts'
import type { Gap } from '../../src/core/event.ts'
import type { BufferItem } from '../../src/core/item.ts'
import { type Outcome, outcomeOf, turn, watch, withCode } from '../support/waiting.ts'

/** What the original printed, see section 5 of the rules. */
interface Trace {
  readonly name: string
  readonly maxSize: number
  readonly steps: readonly Step[]
}

interface Step {
  readonly op: string
  readonly index?: number
  readonly item?: string
  readonly reader?: string
  readonly result?: {
    readonly kind: string
    readonly item?: string
    readonly index?: number
    readonly offset?: number
    readonly lost?: boolean
  }
  readonly after: {
    readonly length: number
    readonly head: string
    readonly tail: string
    readonly items: readonly string[]
  }
}

interface Case {
  readonly name: string
  readonly maxSize: number
  readonly published: readonly {
    readonly index: number
    readonly events: readonly {
      readonly id: string
      readonly topic: string
      readonly key: string
      readonly namespace?: string
      readonly filterKeys?: readonly string[]
    }[]
  }[]
  readonly request: {
    readonly index: number
    readonly startExactlyAtIndex: boolean
    readonly topics: Readonly<Record<string, readonly string[]>>
    readonly namespaces: readonly string[]
  }
  readonly delivered: readonly { readonly index: number; readonly ids: readonly string[] }[]
  readonly error?: string
  readonly seedRepeats?: boolean
}

type Item = BufferItem<{ index: number }>

/** What must come of a read, by section 3 of the rules, whatever the code under test does. */
type Expected = { kind: 'item' | 'error'; item: string } | { kind: 'waits' } | { kind: 'lost' } | { kind: 'ended' }

/** The original's word for it. */
const same = new Map([
  ['item', 'item'],
  ['errorItem', 'error'],
  ['error', 'error'],
  ['dropped', 'lost'],
  ['pending', 'waits'],
  ['none', 'waits'],
])

const traces = load<Trace>('buffer-traces')
const cases = load<Case>('subscription-cases')

function load<T>(name: string): T[] {
  const packed = readFileSync(new URL(`../../../test/fixtures/${name}.ndjson.gz`, import.meta.url))
  const lines = gunzipSync(packed).toString().trimEnd().split('\n')
  return lines.map((line) => JSON.parse(line) as T)
}

function count(counts: Map<string, number>, what: string): void {
  counts.set(what, (counts.get(what) ?? 0) + 1)
}

/**
 * The original's history as a list of names in the order of appending. Where a reader stands is how many of them it has
 * seen; what is still kept is what the original said.
 */
class Model {
  readonly history: string[] = []
  readonly #places = new Map<string, number>()
  #kept: readonly string[] = ['sentinel']
  ended = false

  append(name: string): void {
    this.history.push(name)
    this.#places.set(name, this.history.length)
  }

  keep(items: readonly string[]): void {
    this.#kept = items
    // A sentinel that was not there before stands after all that was appended so far.
    for (const item of items) if (!this.#places.has(item)) this.#places.set(item, this.history.length)
  }

  isKept(name: string): boolean {
    return this.#kept.includes(name)
  }

  after(name: string): Expected {
    const item = this.history[this.#places.get(name) ?? 0]
    if (item === undefined) return this.ended ? { kind: 'ended' } : { kind: 'waits' }
    const isError = item.startsWith('e')
    if (this.isKept(item)) return { kind: isError ? 'error' : 'item', item }
    return isError ? { kind: 'ended' } : { kind: 'lost' }
  }
}

interface Sleeper {
  readonly at: string
  /** Set when the item that it stands on was removed while it slept. */
  removed: boolean
  readonly watched: { readonly outcome: Outcome<Item> }
}

/** One trace against one buffer. */
class Replay {
  readonly model = new Model()
  readonly buffer: EventBuffer<{ index: number }>
  readonly #counts: Map<string, number>
  readonly #differences: Map<string, number>
  readonly #error = new Error('the error item')
  readonly #items = new Map<string, Item>()
  readonly #readers = new Map<string, string>()
  #waiting: Sleeper[] = []

  constructor(maxSize: number, counts: Map<string, number>, differences: Map<string, number>) {
    this.buffer = new EventBuffer({ capacity: maxSize })
    this.#counts = counts
    this.#differences = differences
    this.model.keep(['sentinel'])
  }

  async run(step: Step): Promise<void> {
    const { op, index = 0, item = '' } = step
    count(this.#counts, `${op} ${step.result?.kind ?? 'done'}`)
    if (op === 'append') {
      this.model.append(item)
      this.buffer.append({ index })
    } else if (op === 'appendError') {
      this.model.append(item)
      this.model.ended = true
      this.#same(this.buffer.appendError(this.#error), item)
    } else if (op === 'advanceHead') this.buffer.advanceHead()
    else if (op === 'startAtClosest') this.#place(step, this.buffer.startAtClosest(index))
    else if (op === 'readHead') this.#place(step, { item: this.buffer.head })
    else if (op === 'readTail') this.#place(step, { item: this.buffer.tail })
    else await this.#read(step)
    this.model.keep(step.after.items)
  }

  /** The buffer looks as the original's did. */
  look({ after }: Step): void {
    assert.equal(this.buffer.length, after.length)
    this.#same(this.buffer.head, after.head)
    this.#same(this.buffer.tail, after.tail)
    let item: Item | undefined = this.buffer.head
    for (const name of after.items) {
      assert.ok(item, `${name} must be reachable`)
      this.#same(item, name)
      item = item.nextNoBlock()
    }
    assert.equal(item, undefined)
  }

  /** Those who had to wait in the original sleep on, or got what came next. */
  async checkWaiting(): Promise<void> {
    if (this.#waiting.length === 0) return
    await turn()
    this.#waiting = this.#waiting.filter((sleeper) => {
      const expected = this.model.after(sleeper.at)
      this.#check(sleeper.watched.outcome, expected)
      if (expected.kind !== 'waits') count(this.#counts, `woken on a ${sleeper.removed ? 'removed' : 'kept'} item`)
      sleeper.removed = !this.model.isKept(sleeper.at)
      return expected.kind === 'waits'
    })
  }

  #place({ reader = '', result }: Step, { item, offset }: { item: Item; offset?: number }): void {
    assert.ok(result?.item)
    assert.equal(item.index, result.index ?? item.index)
    assert.equal(offset, result.offset)
    this.#same(item, result.item)
    this.#readers.set(reader, result.item)
  }

  async #read({ op, reader = '', result = { kind: '' } }: Step): Promise<void> {
    const at = this.#readers.get(reader) ?? ''
    const item = this.#items.get(at)
    assert.ok(item)
    if (op === 'nextAborted' || op === 'nextForceClosed') return this.#readStopped(item, op, result.kind)
    let expected = this.model.after(at)
    if (op === 'nextNoBlock') {
      // It has no way to say that nothing will come.
      if (expected.kind === 'ended') expected = { kind: 'waits' }
      this.#checkNow(nextNow(item), expected)
    } else {
      const watched = watch(item.next())
      await turn()
      this.#check(watched.outcome, expected)
      if (expected.kind === 'waits') this.#waiting.push({ at, removed: false, watched })
    }
    this.#compare(result, expected, at)
    // The trace goes on from where the original's reader stood.
    if ((result.kind === 'item' || result.kind === 'errorItem') && result.item) this.#readers.set(reader, result.item)
  }

  async #readStopped(item: Item, op: string, kind: string): Promise<void> {
    const reason = op === 'nextAborted' ? new Error('aborted') : new SpillwayError('CLOSED', 'Closed by force.')
    await assert.rejects(item.next({ signal: AbortSignal.abort(reason) }), (error) => error === reason)
    assert.equal(kind, op === 'nextAborted' ? 'aborted' : 'closed')
  }

  #check(outcome: Outcome<Item>, expected: Expected): void {
    assert.equal(
      outcome.state,
      { waits: 'pending', item: 'done', error: 'failed', lost: 'failed', ended: 'failed' }[expected.kind],
    )
    if (outcome.state === 'done' && 'item' in expected) this.#same(outcome.value, expected.item)
    if (outcome.state !== 'failed') return
    if (expected.kind === 'lost') assert.equal((outcome.error as SpillwayError).code, 'LAGGED')
    else assert.equal(outcome.error, this.#error)
  }

  #checkNow(outcome: Outcome<Item | undefined>, expected: Expected): void {
    assert.equal(outcome.state, expected.kind === 'lost' ? 'failed' : 'done')
    if (outcome.state === 'failed') assert.equal((outcome.error as SpillwayError).code, 'LAGGED')
    if (outcome.state !== 'done') return
    if ('item' in expected && outcome.value) this.#same(outcome.value, expected.item)
    else assert.equal(outcome.value, undefined)
    assert.equal(outcome.value?.error, expected.kind === 'error' ? this.#error : undefined)
  }

  /** What must come is what the original gave, or differs as section 3 says. */
  #compare(result: NonNullable<Step['result']>, expected: Expected, at: string): void {
    const difference = this.#difference(result, expected, at)
    if (difference) count(this.#differences, difference)
    else assert.equal(expected.kind, same.get(result.kind))
    if (result.item !== undefined && 'item' in expected) assert.equal(expected.item, result.item)
  }

  #difference({ kind, lost }: NonNullable<Step['result']>, expected: Expected, at: string): string | undefined {
    // Rule 11: an ended buffer answers with its error on every call, also where its error item was removed.
    if (expected.kind === 'ended') return `the error of the ended buffer, not ${kind}`
    if (kind === 'dropped' && !lost) {
      assert.ok(expected.kind === 'item' || expected.kind === 'error')
      return `${expected.kind}, not dropped`
    }
    if (kind === 'item' && expected.kind === 'lost') return 'no link leads on from a dropped item'
    if (kind === 'pending' && expected.kind !== 'waits') {
      assert.ok(!this.model.isKept(at), 'only a reader on a removed item was left asleep')
      return `${expected.kind}, not waiting on a removed tail`
    }
    return undefined
  }

  #same(item: Item, name: string): void {
    const known = this.#items.get(name)
    if (known) assert.equal(item, known, `${name} must stay the same object`)
    else this.#items.set(name, item)
  }
}

function nextNow(item: Item): Outcome<Item | undefined> {
  try {
    return { state: 'done', value: item.nextNoBlock() }
  } catch (error) {
    return { state: 'failed', error }
  }
}

/** How often the traces do what. */
const exercised = {
  'advanceHead done': 2360,
  'append done': 10030,
  'appendError done': 44,
  'next dropped': 2972,
  'next error': 18,
  'next item': 2328,
  'next pending': 628,
  'nextAborted aborted': 126,
  'nextForceClosed closed': 103,
  'nextNoBlock errorItem': 4,
  'nextNoBlock item': 948,
  'nextNoBlock none': 236,
  'readHead item': 1283,
  'readTail item': 794,
  'startAtClosest item': 2126,
  'woken on a kept item': 553,
  // In the original these sleep for ever.
  'woken on a removed item': 11,
}

for (const looking of ['after every step', 'at the end'] as const) {
  test(`the original's 400 traces give what it gave, looked at ${looking}`, async () => {
    const counts = new Map<string, number>()
    const differences = new Map<string, number>()
    for (const { name, maxSize, steps } of traces) {
      const replay = new Replay(maxSize, counts, differences)
      for (const [position, step] of steps.entries()) {
        try {
          await replay.run(step)
          await replay.checkWaiting()
          if (looking === 'after every step' || position === steps.length - 1) replay.look(step)
        } catch (cause) {
          throw new Error(`${name}, step ${position}: ${JSON.stringify(step)}`, { cause })
        }
      }
    }
    const steps = Object.fromEntries([...counts].sort())
    console.log('steps', steps, 'differences', Object.fromEntries(differences))
    assert.equal(traces.length, 400)
    assert.deepEqual(steps, exercised)
    assert.deepEqual(Object.fromEntries(differences), {
      'item, not dropped': 455,
      'error, not dropped': 2,
      'the error of the ended buffer, not pending': 56,
      'the error of the ended buffer, not dropped': 22,
    })
  })
}

test('the 1,000 subscription cases deliver what the original delivered', async () => {
  const counts = new Map<string, number>()
  for (const one of cases) {
    const broker = createBroker({ capacity: one.maxSize })
    for (const { index, events } of one.published) {
      const inputs = events.map(({ id, ...event }) => ({ ...event, type: 'T', payload: id }))
      await broker.publish(inputs, { index })
    }
    try {
      await checkCase(one, broker, counts)
    } catch (cause) {
      throw new Error(JSON.stringify(one), { cause })
    }
    await broker.close()
  }
  console.log('cases', Object.fromEntries(counts))
  assert.deepEqual(
    [counts.get('refused'), counts.get('delivered'), counts.get('delivered, repeated by the original')],
    [145, 843, 12],
  )
  assert.ok(counts.get('gap'), 'some cases start where nothing is kept any more')
})

async function checkCase(one: Case, broker: Broker, counts: Map<string, number>): Promise<void> {
  const { index, startExactlyAtIndex, topics, namespaces } = one.request
  const from = { at: index, exact: startExactlyAtIndex }
  const options = { from, topics, namespaces, onLag: 'skip' } as const
  const { error } = one
  if (error !== undefined) {
    count(counts, 'refused')
    assert.throws(() => broker.subscribe(options), withCode('NOT_KEPT', new RegExp(error, 'i')))
    return
  }
  const gaps = []
  const got = []
  const subscription = broker.subscribe(options)
  for (;;) {
    const outcome = await outcomeOf(subscription.next())
    if (outcome.state !== 'done') {
      assert.equal(outcome.state, 'pending')
      break
    }
    const { gap, index, events } = outcome.value
    count(counts, gap ? 'gap' : 'batch')
    if (gap) gaps.push(gap)
    else got.push({ index, ids: events.map(({ payload }) => payload) })
  }
  subscription.close()
  count(counts, one.seedRepeats ? 'delivered, repeated by the original' : 'delivered')
  assert.deepEqual(got, one.delivered)
  assert.deepEqual(gaps, expectedGaps(one))
  const ids = got.flatMap((batch) => batch.ids)
  assert.equal(new Set(ids).size, ids.length)
}

/** The original starts at the oldest batch, silently, where what was asked for is no longer kept. */
function expectedGaps({ maxSize, published, request }: Case): Gap[] {
  // A full buffer keeps one batch more than it says, see rule 3.
  const firstKept = Math.max(0, published.length - maxSize - 1)
  const newestLost = published[firstKept - 1]?.index ?? 0
  const before = published[firstKept]?.index ?? 1
  if (request.index === 0 || request.index > newestLost) return []
  return [{ after: request.index - 1, before, reason: 'retention' }]
}
