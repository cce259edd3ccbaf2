import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type ErrorCode, errorTable, SpillwayError, shown } from '../../src/core/errors.ts'

const codes = Object.keys(errorTable) as ErrorCode[]

test('every code has a close code of its own, and comes back exactly if that is below 4500', () => {
  const closeCodes = codes.map((code) => errorTable[code].closeCode)
  assert.equal(new Set(closeCodes).size, codes.length)
  for (const code of codes) {
    const { closeCode, retryable } = errorTable[code]
    assert.ok(closeCode >= 4000 && closeCode <= 4999, code)
    assert.equal(retryable, closeCode < 4500, code)
  }
})

test('every code has an HTTP status of a refusal, and advice in a sentence', () => {
  for (const code of codes) {
    const { status, advice } = errorTable[code]
    assert.ok(status >= 400 && status <= 599, code)
    assert.match(advice, /^[A-Z].*\.$/s, code)
  }
})

test('an error carries what its code means, its cause, gap and cursor', () => {
  const cause = new Error('below')
  const gap = { after: 1, before: 5, reason: 'lag' } as const
  for (const code of codes) {
    const error = new SpillwayError(code, 'what happened', { cause, gap, cursor: 'e:4' })
    const { status, closeCode, retryable, advice } = error
    assert.deepEqual({ status, closeCode, retryable, advice }, errorTable[code])
    assert.ok(error instanceof Error)
    assert.deepEqual([error.name, error.message, error.code], ['SpillwayError', 'what happened', code])
    assert.deepEqual([error.cause, error.gap, error.cursor], [cause, gap, 'e:4'])
  }
  assert.equal('cause' in new SpillwayError('INVALID', 'none'), false)
})

test('a stranger’s value is shown short and on one line', () => {
  assert.equal(shown('a\nb'), '"a\\nb"')
  assert.ok(shown('x'.repeat(1000)).length <= 80)
  assert.ok(shown(10n ** 200n).length <= 80)
  assert.ok(shown(() => 'x'.repeat(1000)).length <= 80)
  assert.deepEqual(
    [shown(undefined), shown(null), shown(Number.NaN), shown(7n), shown(true)],
    ['undefined', 'null', 'NaN', '7n', 'true'],
  )
  assert.deepEqual(
    [shown({ secret: 1 }), shown([1, 2]), shown(Symbol('s'))],
    ['an object', 'an array of 2', 'Symbol(s)'],
  )
  assert.doesNotMatch(shown(Symbol('a\nb')), /\n/)
  assert.equal(shown('\u009b31m\u007f'), '"\\u009b31m\\u007f"')
  assert.doesNotMatch(
    shown(() => {
      return 1
    }),
    /\n/,
  )
})
