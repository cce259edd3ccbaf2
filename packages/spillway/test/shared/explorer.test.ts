import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as layout from '../../src/shared/layout.ts'
import * as reader from '../../src/shared/reader.ts'
import * as span from '../../src/shared/span.ts'
import * as wait from '../../src/shared/wait.ts'
import * as writer from '../../src/shared/writer.ts'
import { explore } from './explorer.ts'
import { mistakes, withMistake } from './mistakes.ts'
import { type Parts, type RingScenario, ringScenario } from './scenarios.ts'

const parts: Parts = { ...layout, ...reader, ...span, ...wait, ...writer }

/** Four pages, which six records go round one and a half times. */
const tiny: RingScenario = { capacity: 256, page: 64, records: [8, 24, 16, 24, 8, 20], readers: ['first'] }
const five = [8, 24, 16, 24, 8]

interface Case extends Partial<RingScenario> {
  name: string
  bound: number
  weak?: boolean
}

const cases: readonly Case[] = [
  { name: 'two readers', readers: ['first', 'first'], records: five, bound: 2 },
  {
    name: 'a reader, and one that looks for the oldest',
    readers: ['first', 'oldest'],
    records: five,
    bound: 2,
    weak: true,
  },
  { name: 'one reader, three preemptions', records: five, bound: 3 },
  { name: 'one reader on a weak processor', bound: 2, weak: true },
  { name: 'a reader that looks for the newest', readers: ['newest'], bound: 2 },
  { name: 'a reader that looks for an index', readers: [{ after: 25 }], bound: 2 },
  { name: 'a bound on items', readers: ['oldest'], items: 2, bound: 2 },
  { name: 'two records per publish', perPublish: 2, bound: 2, weak: true },
  { name: 'a reader that copies less than a record', spanBytes: 48, bound: 2 },
  { name: 'two pages', page: 128, bound: 2 },
  { name: 'two readers of two pages', page: 128, readers: ['first', 'first'], records: five, bound: 2 },
  { name: 'records that run through every page', records: [24, 24, 24, 24, 24, 24], bound: 2 },
  { name: 'readers that wait for a bell', readers: ['first', 'first'], records: [8, 24], hasBell: true, bound: 2 },
  { name: 'TAIL wraps', origin: 2 ** 29 - 4, bound: 2 },
  { name: 'a span of EPOCH begins', origin: 2 ** 30 - 4, readers: ['oldest'], bound: 2, weak: true },
  { name: 'INTENT wraps', origin: 2 ** 32 - 4, bound: 2 },
  {
    name: 'a reader that slept through 2^32 pages',
    origin: 2 ** 32,
    readers: [{ position: 48, seq: 0, index: 0 }],
    bound: 2,
  },
]

const isOldestNode = Number.parseInt(process.versions.node, 10) < 22
/** A minute is spent on it once. */
const skip = isOldestNode && 'the accesses are the same on every Node: they are explored on the pinned one'

for (const { name, bound, weak = false, ...scenario } of cases) {
  test(`no order of accesses is at fault: ${name}`, { skip }, (t) => {
    const { interleavings, fault } = explore(ringScenario(parts, { ...tiny, ...scenario }), { bound, weak })
    t.diagnostic(`${interleavings} interleavings`)
    assert.equal(fault, undefined)
  })
}

test('a writer may be killed after any of its accesses: the next one goes on', { skip }, (t) => {
  let interleavings = 0
  let killedAfter = 0
  // It has less than 100.
  for (; killedAfter < 100; killedAfter++) {
    const found = explore(ringScenario(parts, { ...tiny, killedAfter }), { bound: 1, weak: killedAfter % 2 === 0 })
    interleavings += found.interleavings
    assert.equal(found.fault, undefined, `killed after ${killedAfter}`)
  }
  t.diagnostic(`${interleavings} interleavings`)
})

for (const mistake of mistakes) {
  test(`the explorer finds a planted mistake: ${mistake.name}`, { skip }, async (t) => {
    const { scenario, weak = false } = mistake
    const planted = ringScenario(await withMistake(mistake), { ...tiny, ...scenario })
    let interleavings = 0
    for (let bound = 1; bound <= 4; bound++) {
      const found = explore(planted, { bound, weak })
      interleavings += found.interleavings
      if (!found.fault) continue
      t.diagnostic(`at bound ${bound}, after ${interleavings} interleavings: ${(found.fault.error as Error).message}`)
      return
    }
    assert.fail(`not found in ${interleavings} interleavings`)
  })
}

for (const mistake of mistakes.filter(({ weak }) => weak)) {
  test(`interleaving alone does not show: ${mistake.name}`, { skip }, async () => {
    const planted = ringScenario(await withMistake(mistake), { ...tiny, ...mistake.scenario })
    assert.equal(explore(planted, { bound: 2 }).fault, undefined)
  })
}
