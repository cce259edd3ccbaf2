import assert from 'node:assert/strict'
import { test } from 'node:test'
import { median, rotate, spread } from '../src/stats.ts'

test('the median is the middle value, or the mean of the middle two', () => {
  assert.equal(median([9, 1, 5]), 5)
  assert.equal(median([4, 1, 3, 2]), 2.5)
  assert.equal(median([7]), 7)
  assert.equal(median([]), Number.NaN)
})

test('numbers are sorted as numbers', () => {
  assert.equal(median([10, 9, 100]), 10)
})

test('a spread tells median, smallest and largest', () => {
  assert.deepEqual(spread([3, 1, 2]), { median: 2, min: 1, max: 3 })
})

test('rotation lets everybody be first once', () => {
  const firsts = [0, 1, 2].map((round) => rotate(['a', 'b', 'c'], round)[0])
  assert.deepEqual(firsts, ['a', 'b', 'c'])
  assert.deepEqual(rotate(['a', 'b', 'c'], 4), ['b', 'c', 'a'])
  assert.deepEqual(rotate([], 4), [])
})
