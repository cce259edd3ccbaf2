import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { StreamRecord } from '../../src/log/jetstream/record.ts'
import { Turns } from '../../src/log/jetstream/turns.ts'

/** A record of `writer`, behind which so many more are on their way. */
function record(writer: string, left = 0): StreamRecord {
  const head = { time: 0, append: `${writer}.1.0`, position: 1, count: 1, previous: 0, left }
  return { seq: 1, kind: 'batch', head, data: new Uint8Array() }
}

/** What `own` makes of windows that take 4 ms, each read right behind the one before it. */
function afterWindows(own: string, writers: readonly string[]) {
  let now = 1000
  const turns = new Turns(own, () => now)
  for (let n = 0; n < 100; n++) turns.took(4)
  for (const writer of writers) {
    now += 4
    turns.note(record(writer))
  }
  return { turns, dueIn: (later = 0) => Math.round(turns.dueIn(now + later)), wait: (ms: number) => (now += ms) }
}

const rounds = (...writers: string[]) => Array.from({ length: 8 }, () => writers).flat()

test('a writer that is alone waits for nobody', () => {
  assert.equal(afterWindows('a', []).dueIn(), 0)
  assert.equal(afterWindows('a', rounds('a', 'a')).dueIn(), 0)
})

test('writers go round: the next one begins at once, the others leave each before them the time of a window', () => {
  const windows = rounds('a', 'b', 'c')
  assert.deepEqual(
    ['a', 'b', 'c'].map((own) => afterWindows(own, windows).dueIn()),
    [0, 4, 8],
  )
  assert.deepEqual(
    ['a', 'b', 'c'].map((own) => afterWindows(own, [...windows, 'a']).dueIn()),
    [8, 0, 4],
  )
  assert.equal(afterWindows('c', windows).dueIn(8), 0)
})

test('in the middle of a window of another everybody waits for its rest, for a while', () => {
  const { turns, dueIn } = afterWindows('a', rounds('a', 'b'))
  turns.note(record('b', 2))
  assert.equal(dueIn(), 16)
  assert.equal(dueIn(16), 0)
  turns.note(record('b', 0))
  assert.equal(dueIn(), 0)
})

test('who appends now and then takes no turn, and nobody waits for it', () => {
  const often = Array.from({ length: 22 }, () => 'b')
  assert.equal(afterWindows('b', ['a', ...often]).dueIn(), 0)
  assert.equal(afterWindows('b', ['a', 'a', 'a', ...often.slice(2)]).dueIn(), 4)
})

test('where windows stand far apart nobody waits', () => {
  const { turns, wait, dueIn } = afterWindows('b', [])
  for (const writer of rounds('a', 'b', 'c')) {
    wait(20)
    turns.note(record(writer))
  }
  assert.equal(dueIn(), 0)
})

test('what was long ago does not count', () => {
  const { wait, dueIn } = afterWindows('c', rounds('a', 'b', 'c'))
  assert.equal(dueIn(), 8)
  wait(2000)
  assert.equal(dueIn(), 0)
})

test('whoever waits begins as soon as it is its turn', async () => {
  const { turns } = afterWindows('b', rounds('a', 'b', 'c'))
  const come = turns.come()
  turns.note(record('a'))
  await come
  assert.equal(turns.dueIn(1000 + 24 * 4), 0)
})
