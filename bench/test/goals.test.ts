import assert from 'node:assert/strict'
import { test } from 'node:test'
import { goals, judge, losses } from '../src/goals.ts'
import { parts } from '../src/parts.ts'
import { Results } from '../src/results.ts'
import { machine, samples, smallRun } from './results.ts'

const judged = (results: Results, number: string) => judge(results).find(({ goal }) => goal.number === number)

test('a ratio is taken within each round', () => {
  // Medians would give 10 / 4.
  assert.deepEqual(judged(smallRun(), 'A1a')?.spread, { median: 3, min: 2.5, max: 3 })
})

test('a goal at most is met up to its limit and missed above', () => {
  assert.equal(judged(smallRun(), 'A1a')?.met, true)
  assert.equal(judged(smallRun(), 'A6')?.met, false)
})

test('a goal at least is missed below its limit', () => {
  const original = judged(smallRun(), 'A1b')
  assert.equal(original?.spread?.median, 24.1)
  assert.equal(original?.met, false)
})

test('a goal that was not measured is neither met nor missed', () => {
  assert.equal(judged(smallRun(), 'A9')?.met, undefined)
})

test('rounds in which one side is missing do not count', () => {
  const [, ...later] = samples('append', 'floor: array push', 'floor', [1, 2, 2])
  const results = new Results([machine, ...samples('append', 'spillway', 'ours', [2, 2, 2]), ...later])
  assert.equal(judged(results, 'A1a')?.spread?.median, 1)
})

test('losses are those against peers, with their factor', () => {
  assert.deepEqual(losses(smallRun()), [{ scenario: 'append', ours: 'spillway', peer: 'EventEmitter', factor: 2 }])
})

test('where more is better, a loss is to reach less', () => {
  const results = new Results([
    { ...machine, part: 'b' },
    { kind: 'scenario', id: 'rate-1000', title: 'Rate', unit: '/s', more: true },
    ...samples('rate-1000', 'spillway', 'ours', [100]),
    ...samples('rate-1000', 'ws', 'peer', [400]),
    ...samples('rate-1000', 'better-sse', 'peer', [50]),
  ])
  assert.deepEqual(
    results.rows('rate-1000').map(({ contender }) => contender),
    ['ws', 'spillway', 'better-sse'],
  )
  assert.deepEqual(losses(results), [{ scenario: 'rate-1000', ours: 'spillway', peer: 'ws', factor: 4 }])
})

for (const { id, scenarios } of parts) {
  // Part W compares and has no limits.
  if (id === 'w') continue
  const count = { a: 12, b: 8, c: 5, d: 3, e: 4 }[id]
  test(`part ${id} has its goals from 1 to ${count}, and each asks for something that is measured`, () => {
    const everything = scenarios.flatMap(({ id, contenders, shows = [] }) => {
      const extra = Object.fromEntries([...shows, 'listenersLeft'].map((name) => [name, 1]))
      return contenders.flatMap((contender) => {
        return samples(id, contender, 'ours', [1]).map((sample) => ({ ...sample, extra }))
      })
    })
    const judged = judge(new Results([{ ...machine, part: id }, ...everything]))
    assert.deepEqual(
      new Set(judged.map(({ goal }) => Number.parseInt(goal.number.slice(1), 10))),
      new Set(Array.from({ length: count }, (_, n) => n + 1)),
    )
    for (const { goal, spread } of judged) {
      assert.ok(goal.text.includes('no clean figure') || Number.isFinite(spread?.median), goal.number)
    }
  })
}

test('no two goals have the same number', () => {
  assert.equal(new Set(goals.map(({ number }) => number)).size, goals.length)
})
