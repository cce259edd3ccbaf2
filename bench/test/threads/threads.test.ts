import assert from 'node:assert/strict'
import { test } from 'node:test'
import { problemOf, threadConformance } from '../../src/threads/conformance.ts'
import type { Outcome, Stream } from '../../src/threads/contender.ts'
import { message, oursEach, threadContender, threadContenders, twinEach } from '../../src/threads/contenders.ts'
import { Pacer, report } from '../../src/threads/pacer.ts'
import { aheadOf, digit, payloadsOf, sizesOf, textsOf } from '../../src/threads/payload.ts'

for (const contender of threadContenders) {
  const skip = (await contender.missing?.()) ?? false
  test(`${contender.name}: readers get every byte in order, or know what they lost`, { skip }, async () => {
    assert.equal(await threadConformance(contender, 3000), undefined)
  })
}

for (const name of [oursEach, message, twinEach]) {
  const contender = threadContender(name)
  const skip = (await contender.missing?.()) ?? false
  test(`${name}: it is told how long a record took to its reader`, { skip }, async () => {
    const { p50, p99 } = await contender.wake(20, 256)
    assert.ok(p50 > 0 && p50 <= p99)
  })
}

test('what is lost in silence, wrong, or lost where nothing may be, is told apart', () => {
  const stream = { readers: 1 } as Stream
  const ended = (got: number, lost: number, wrong: number): Outcome => {
    return { records: 10, rate: 1, accounts: [{ got, lost, wrong }] }
  }
  assert.equal(problemOf(stream, ended(10, 0, 0), false), undefined)
  assert.equal(problemOf(stream, ended(7, 3, 0), true), undefined)
  assert.match(problemOf(stream, ended(7, 3, 0), false) ?? '', /lost 3 of 10/)
  assert.match(problemOf(stream, ended(9, 0, 0), true) ?? '', /got 9 of 10 records and counted 0 as lost/)
  assert.match(problemOf(stream, ended(10, 0, 1), true) ?? '', /1 of 10 records wrong/)
  assert.match(problemOf({ ...stream, readers: 2 }, ended(10, 0, 0), false) ?? '', /1 of 2 readers/)
})

test('records begin with their number and are the same as bytes and as text', () => {
  const payloads = payloadsOf([1, 7, 300, 4096])
  assert.deepEqual(
    payloads.map(({ length }) => length),
    [1, 7, 300, 4096],
  )
  textsOf(payloads).forEach((text, number) => {
    assert.equal(text.charCodeAt(0), digit(number))
    assert.deepEqual(new Uint8Array(Buffer.from(text, 'latin1')), payloads[number])
  })
})

test('half a ring holds what a writer may be ahead', () => {
  assert.equal(aheadOf(sizesOf(64), 2 ** 22), 21_845)
  assert.equal(aheadOf([16_384], 2 ** 22), 127)
})

test('a writer goes on once its slowest reader is near', () => {
  const pacer = new Pacer(2, 10)
  report(pacer.cells, 0, 500)
  report(pacer.cells, 1, 95)
  assert.equal(pacer.slowest, 95)
  pacer.wait(104)
})
