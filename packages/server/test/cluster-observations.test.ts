import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Observations } from './support/cluster/observations.ts'

/** Two publishers whose batches are acknowledged at 1, 3, 5 and 2, 4; and what a reader of all that receives. */
function setup() {
  const observations = new Observations()
  const history = ['p1-1', 'p2-1', 'p1-2', 'p2-2', 'p1-3'].map((id, place) => ({ id, index: place + 1 }))
  for (const { id, index } of history) {
    observations.publishing(id, `content of ${id}`)
    observations.acknowledged(id.slice(0, 2), id, index)
  }
  const read = (name: string, batches: readonly { id: string; index: number }[] = history) => {
    const record = observations.reader(name)
    for (const { id, index } of batches) record.batch(index, id, `content of ${id}`)
    return record
  }
  return { observations, history, read }
}

test('readers that received all once and in order break nothing', () => {
  const { observations, read } = setup()
  read('a')
  read('b')
  assert.deepEqual(observations.violations(), [])
  assert.equal(observations.newest, 5)
})

test('a reader that has not come as far is not accused of what lies ahead', () => {
  const { observations, history, read } = setup()
  read('a')
  assert.equal(read('b', history.slice(0, 3)).position, 3)
  assert.deepEqual(observations.violations(), [])
})

test('a reader owes nothing of what is before its beginning', () => {
  const { observations } = setup()
  observations.reader('late', 4).batch(5, 'p1-3', 'content of p1-3')
  assert.deepEqual(observations.violations(), [])
})

test('an acknowledged batch that no reader received is found', () => {
  const { observations, history, read } = setup()
  const without = history.filter(({ index }) => index !== 3)
  read('a', without)
  read('b', without)
  assert.deepEqual(observations.violations(), [
    'a never received p1-2, acknowledged at 3',
    'b never received p1-2, acknowledged at 3',
  ])
})

test('a loss that was told is none, in whole or in part', () => {
  const { observations, history } = setup()
  const record = observations.reader('a')
  record.batch(1, 'p1-1', 'content of p1-1')
  record.gap(1, 3)
  record.gap(2, 5)
  record.batch(5, 'p1-3', 'content of p1-3')
  assert.deepEqual(observations.violations(), [])
  assert.equal(record.position, history.length)
})

test('a gap ends the duty for what is in it, and not for more', () => {
  const { observations } = setup()
  const record = observations.reader('a')
  record.batch(1, 'p1-1', 'content of p1-1')
  record.gap(1, 4)
  record.batch(5, 'p1-3', 'content of p1-3')
  assert.deepEqual(observations.violations(), ['a never received p2-2, acknowledged at 4'])
})

test('a gap about what the reader has is found', () => {
  const { observations, read } = setup()
  read('a').gap(4, 6)
  assert.deepEqual(observations.violations(), ['a was told that it lost what is between 4 and 6, and received 5'])
})

test('a batch that one reader has and another was not told of is found, acknowledged or not', () => {
  const { observations, history, read } = setup()
  observations.publishing('p2-3', 'content of p2-3')
  observations.publishing('p1-4', 'content of p1-4')
  const all = [...history, { id: 'p2-3', index: 6 }, { id: 'p1-4', index: 7 }]
  read('a', all)
  read(
    'b',
    all.filter(({ index }) => index !== 6),
  )
  assert.deepEqual(observations.violations(), ['b never received p2-3 at 6, which another reader has'])
})

test('a batch that comes twice is found, whether at the same index or another', () => {
  const { observations, history, read } = setup()
  read('a', [...history, { id: 'p2-2', index: 6 }])
  read('b', [...history.slice(0, 4), { id: 'p2-2', index: 4 }])
  assert.deepEqual(observations.violations(), [
    'a received p2-2 twice, at 4 and at 6',
    'b received 4 after 4',
    'b received p2-2 twice, at 4 and at 4',
  ])
})

test('a batch that nobody acknowledged may come once, and not twice', () => {
  const { observations, history, read } = setup()
  observations.publishing('p2-3', 'content of p2-3')
  const once = [...history, { id: 'p2-3', index: 6 }]
  read('a', once)
  assert.deepEqual(observations.violations(), [])
  read('b', [...once, { id: 'p2-3', index: 7 }])
  assert.deepEqual(observations.violations(), ['b received p2-3 twice, at 6 and at 7'])
})

test('batches in another order than another reader has are found', () => {
  const { observations, history, read } = setup()
  read('a')
  const swapped = history.map(({ id, index }) => ({ id: index === 2 ? 'p1-2' : index === 3 ? 'p2-1' : id, index }))
  read('b', swapped)
  assert.deepEqual(observations.violations(), [
    'b has p1-2 at 2, where another reader has p2-1',
    'b has p2-1 at 3, where another reader has p1-2',
    'b received p1-2 at 2, where p2-1 was acknowledged',
    'b received p2-1 at 3, where p1-2 was acknowledged',
  ])
})

test('batches that come in another order than their indexes are found', () => {
  const { observations, history, read } = setup()
  read(
    'a',
    [...history].sort((a, b) => (a.index % 2) - (b.index % 2) || a.index - b.index),
  )
  assert.deepEqual(observations.violations(), ['a received 1 after 4'])
})

test('content that is not what was published is found, and so is a batch of nobody', () => {
  const { observations } = setup()
  const record = observations.reader('a')
  record.batch(1, 'p1-1', 'else')
  record.batch(2, 'p2-1', 'content of p2-1')
  record.batch(3, 'x', '')
  assert.deepEqual(observations.violations(), [
    'a received p1-1 as else, published was content of p1-1',
    'a received x at 3, which nobody published',
    'a received x at 3, where p1-2 was acknowledged',
  ])
})

test('acknowledgements that contradict each other are found', () => {
  const { observations } = setup()
  observations.acknowledged('p1', 'p1-3', 6)
  observations.publishing('p2-3', '')
  observations.acknowledged('p2', 'p2-3', 1)
  assert.deepEqual(observations.violations(), [
    'p1-3 was acknowledged at 5 and at 6',
    'p1-1 and p2-3 were both acknowledged at 1',
    'p2-3 was published after p2-2 was acknowledged at 4, and got 1',
  ])
})

test('another history and a refusal are found', () => {
  const { observations, read } = setup()
  read('a').reset('after 5')
  observations.refused('p1-4', '409 KEY_REUSED')
  assert.deepEqual(observations.violations(), [
    'p1-4 was refused: 409 KEY_REUSED',
    'a was sent into another history: after 5',
  ])
})
