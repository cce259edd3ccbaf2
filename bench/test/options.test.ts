import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseOptions } from '../src/options.ts'

test('without options everything runs, as often as its part wants', () => {
  assert.deepEqual(parseOptions([]), { quick: false, only: [], with: [] })
})

test('a part, rounds and names can be chosen', () => {
  assert.deepEqual(parseOptions(['--part', 'b', '--rounds', '2', '--only', 'single,idle', '--with', 'ws']), {
    part: 'b',
    rounds: 2,
    quick: false,
    only: ['single', 'idle'],
    with: ['ws'],
  })
})

test('what makes no sense is refused', () => {
  assert.throws(() => parseOptions(['--part', 'x']), /--part must be a, b, c, d, e or w, got x/)
  assert.throws(() => parseOptions(['--rounds', '0']), /--rounds must be a number from 1 on, got 0/)
})
