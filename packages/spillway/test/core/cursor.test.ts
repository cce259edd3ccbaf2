import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { formatCursor, newEpoch, parseCursor } from '../../src/core/cursor.ts'
import { withCode } from '../support/waiting.ts'

const epochs = fc.stringMatching(/^[A-Za-z0-9_-]{1,64}$/)
const indexes = fc.oneof(fc.maxSafeNat(), fc.constant(Number.MAX_SAFE_INTEGER), fc.constant(0))

test('a cursor round-trips', () => {
  fc.assert(
    fc.property(epochs, indexes, (epoch, index) => {
      assert.deepEqual(parseCursor(formatCursor(epoch, index)), { epoch, index })
    }),
  )
})

test('a cursor is safe in headers, URLs and SSE ids', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 8.64e15 }), indexes, (now, index) => {
      const cursor = formatCursor(newEpoch(now), index)
      assert.match(cursor, /^[A-Za-z0-9_-]+:[0-9]+$/)
      assert.equal(parseCursor(cursor).index, index)
    }),
  )
})

test('anything else is refused, or is a cursor to the last character', () => {
  const nearly = fc.tuple(epochs, indexes, fc.string(), fc.nat(90)).map(([epoch, index, noise, at]) => {
    const cursor = formatCursor(epoch, index)
    return cursor.slice(0, at) + noise + cursor.slice(at)
  })
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.string({ unit: 'binary' }), nearly), (text) => {
      try {
        const { epoch, index } = parseCursor(text)
        assert.equal(formatCursor(epoch, index), text)
      } catch (error) {
        withCode('INVALID', /^cursor must be/)(error)
      }
    }),
    { numRuns: 2000 },
  )
})

test('garbage is refused with INVALID', () => {
  const garbage = [
    ...[
      '',
      ':',
      'e',
      'e:',
      ':1',
      'e:-1',
      'e:+1',
      'e:1.5',
      'e:01',
      'e:1e3',
      'e:0x1',
      'e: 1',
      ' e:1',
      'e:1 ',
      'e:1\n',
      '\ne:1',
    ],
    ...[
      'e:9007199254740992',
      'e:99999999999999999999',
      'e:1:2',
      'é:1',
      'e\0:1',
      `${'e'.repeat(65)}:1`,
      'e:1'.repeat(1000),
    ],
    ...['e:١', 'e:NaN', 'e:Infinity', '../e:1', 'e%3A1'],
  ]
  for (const text of garbage) assert.throws(() => parseCursor(text), withCode('INVALID', /^cursor must be/), text)
  for (const value of [undefined, null, 7, {}, ['e:1']]) {
    assert.throws(() => parseCursor(value as unknown as string), withCode('INVALID'), String(value))
  }
})

test('two histories of the same moment differ', () => {
  assert.equal(new Set(Array.from({ length: 1000 }, () => newEpoch(1_700_000_000_000))).size, 1000)
})
