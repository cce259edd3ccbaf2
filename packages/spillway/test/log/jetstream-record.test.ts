import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatHead, parseHead, type RecordHead } from '../../src/log/jetstream/record.ts'

const head: RecordHead = { time: 1764439920123, append: 'w.1.0', position: 2, count: 3, previous: 41, left: 5 }

test('a head is read as it was written', () => {
  for (const written of [head, { ...head, previous: undefined, left: 0 }, { ...head, previous: 2 ** 53 - 1 }]) {
    assert.deepEqual(parseHead(formatHead(written)), written)
  }
})

test('a head that does not say what is behind it says nothing is', () => {
  assert.equal(parseHead('1 0 a.1 1 1 -')?.left, 0)
})

test('what is no head of this version is none', () => {
  const texts = [
    '',
    ' ',
    '1',
    '1 ',
    '1 0',
    '1 0 a.1',
    '1 0 a.1 1',
    '1 0 a.1 1 1',
    '1 0  1 1 -',
    '2 0 a.1 1 1 - 0',
    '11 0 a.1 1 1 - 0',
    ' 0 a.1 1 1 - 0',
    '1 x a.1 1 1 - 0',
    '1 0 a.1 x 1 - 0',
    '1 0 a.1 0 1 - 0',
    '1 0 a.1 2 1 - 0',
    '1 0 a.1 1 -1 - 0',
    '1 0 a.1 1 99999999999999999999 - 0',
    '1 0 a.1 1 1 x 0',
    '1 0 a.1 1 1  0',
    '1 0 a.1 1 1 - x',
  ]
  for (const text of texts) assert.equal(parseHead(text), undefined, JSON.stringify(text))
})
