import assert from 'node:assert/strict'
import { test } from 'node:test'
import { goals, judge, losses } from '../src/goals.ts'
import { Results } from '../src/results.ts'
import { scenarios } from '../src/scenarios.ts'
import { machine, samples, smallRun } from './results.ts'

const judged = (results: Results, number: string) => judge(results).find(({ goal }) => goal.number === number)

test('a ratio is taken within each round', () => {
  // Medians would give 10 / 4.
  assert.deepEqual(judged(smallRun(), '1a')?.spread, { median: 3, min: 2.5, max: 3 })
})

test('a goal at most is met up to its limit and missed above', () => {
  assert.equal(judged(smallRun(), '1a')?.met, true)
  assert.equal(judged(smallRun(), '6')?.met, false)
})

test('a goal at least is missed below its limit', () => {
  const original = judged(smallRun(), '1b')
  assert.equal(original?.spread?.median, 24.1)
  assert.equal(original?.met, false)
})

test('a goal that was not measured is neither met nor missed', () => {
  assert.equal(judged(smallRun(), '9')?.met, undefined)
})

test('rounds in which one side is missing do not count', () => {
  const [, ...later] = samples('append', 'floor: array push', 'floor', [1, 2, 2])
  const results = new Results([machine, ...samples('append', 'spillway', 'ours', [2, 2, 2]), ...later])
  assert.equal(judged(results, '1a')?.spread?.median, 1)
})

test('losses are those against peers, with their factor', () => {
  assert.deepEqual(losses(smallRun()), [{ scenario: 'append', ours: 'spillway', peer: 'EventEmitter', factor: 2 }])
})

test('every goal from 1 to 12 is there, and each asks for something that is measured', () => {
  assert.deepEqual(
    new Set(goals.map(({ number }) => Number.parseInt(number, 10))),
    new Set(Array.from({ length: 12 }, (_, n) => n + 1)),
  )
  const everything = scenarios.flatMap(({ id, contenders }) =>
    contenders.flatMap((contender) =>
      samples(id, contender, 'ours', [1]).map((sample) => ({ ...sample, extra: { listenersLeft: 0 } })),
    ),
  )
  for (const { goal, spread } of judge(new Results([machine, ...everything]))) assert.ok(spread, goal.number)
})
