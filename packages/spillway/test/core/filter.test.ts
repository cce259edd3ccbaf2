import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { createBroker } from '../../src/core/broker.ts'
import { type EventInput, encodeEvents, StoredBatch, type StoredEvent, type StreamEvent } from '../../src/core/event.ts'
import { Filter, FilterIndex, type FilterOptions } from '../../src/core/filter.ts'
import { event, publish, shapes } from '../support/brokers.ts'
import { withCode } from '../support/waiting.ts'

function stored(input: Partial<EventInput>): StoredEvent {
  return encodeEvents([{ topic: 'Job', type: 'T', ...input }]).events[0] as StoredEvent
}

const matches = (options: FilterOptions, input: Partial<EventInput>): boolean =>
  new Filter(options).matches(stored(input))

test('24. a filter without options wants everything, and * as topic or key matches all', () => {
  for (const options of [{}, { topics: { '*': ['*'] } }, { topics: { Job: ['*'] } }, { topics: { '*': ['web'] } }]) {
    assert.ok(matches(options, { topic: 'Job', key: 'web' }), JSON.stringify(options))
  }
  assert.equal(matches({ topics: { Node: ['*'] } }, { topic: 'Job', key: 'web' }), false)
  assert.equal(matches({ topics: { '*': ['web'] } }, { topic: 'Node', key: 'db' }), false)
})

test('24. names are literal and case-sensitive', () => {
  for (const [wanted, key] of [
    ['web', 'Web'],
    ['we*', 'web'],
    ['.*', 'web'],
    ['web', 'web '],
    ['é', 'e\u0301'],
  ] as const) {
    assert.equal(matches({ topics: { Job: [wanted] } }, { key }), false, `${wanted} ${key}`)
  }
  assert.equal(matches({ topics: { job: ['*'] } }, { topic: 'Job' }), false)
  assert.ok(matches({ topics: { Évaluation: ['日本'] } }, { topic: 'Évaluation', key: '日本' }))
  assert.ok(matches({ topics: JSON.parse('{"__proto__":["a"]}') }, { topic: '__proto__', key: 'a' }))
  assert.equal(matches({ topics: { Job: ['a'] } }, { topic: 'constructor', key: 'a' }), false)
})

test('24. an event matches a key if its key or one of its filterKeys equals it', () => {
  const topics = { Job: ['web'] }
  assert.ok(matches({ topics }, { key: 'web' }))
  assert.ok(matches({ topics }, { key: 'db', filterKeys: ['x', 'web'] }))
  assert.equal(matches({ topics }, { key: 'db', filterKeys: ['x'] }), false)
  assert.equal(
    matches({ topics }, { key: 'db', filterKeys: ['*'] }),
    false,
    'a key that is called * is a name like any other',
  )
  assert.ok(matches({ topics: { Job: [''] } }, {}), 'no key is the empty key')
})

test('24. *:[k] and T:[j] together are the union', () => {
  const topics = { '*': ['k'], Job: ['j'] }
  const wanted = (topic: string, key: string): boolean => matches({ topics }, { topic, key })
  assert.deepEqual(
    [wanted('Job', 'j'), wanted('Job', 'k'), wanted('Node', 'k'), wanted('Node', 'j'), wanted('Job', 'x')],
    [true, true, true, false, false],
  )
})

test('better: a key beside * leaves the wildcard on', () => {
  for (const topics of [{ Job: ['web', '*'] }, { '*': ['*', 'web'] }, { '*': ['*'], Job: ['web'] }]) {
    assert.ok(matches({ topics }, { topic: 'Job', key: 'db' }), JSON.stringify(topics))
  }
})

test('24. an event without namespace passes every list, any other must be in it', () => {
  assert.ok(matches({ namespaces: [] }, {}))
  assert.ok(matches({ namespaces: ['prod'] }, {}))
  assert.ok(matches({ namespaces: ['prod', 'dev'] }, { namespace: 'dev' }))
  assert.ok(matches({ namespaces: ['*'] }, { namespace: 'dev' }))
  assert.ok(matches({}, { namespace: 'dev' }))
  assert.equal(matches({ namespaces: ['prod'] }, { namespace: 'dev' }), false)
  assert.equal(matches({ namespaces: [] }, { namespace: 'dev' }), false)
  assert.equal(matches({ namespaces: ['Prod'] }, { namespace: 'prod' }), false)
})

test('24. a custom filter runs last, on what passed the rest', () => {
  const seen: string[] = []
  const filter = (wanted: StreamEvent): boolean => {
    seen.push(wanted.key)
    return (wanted.payload as { ok: boolean }).ok
  }
  const options = { topics: { Job: ['a', 'b'] }, namespaces: ['prod'], filter }
  assert.ok(matches(options, { key: 'a', namespace: 'prod', payload: { ok: true } }))
  assert.equal(matches(options, { key: 'b', payload: { ok: false } }), false)
  assert.equal(matches(options, { key: 'c', payload: { ok: true } }), false)
  assert.equal(matches(options, { key: 'a', namespace: 'dev', payload: { ok: true } }), false)
  assert.deepEqual(seen, ['a', 'b'])
})

test('24. a custom filter that throws ends its own reader, with its error, and no other', async () => {
  const broker = createBroker()
  const mistake = new Error('a mistake in a filter')
  const failing = broker.subscribe({
    filter: ({ key }) => {
      if (key === 'b') throw mistake
      return true
    },
  })
  const other = broker.subscribe()
  const waiting = other.next()
  await publish(broker, 'a', 'b', 'c')
  assert.deepEqual((await failing.next()).events[0]?.key, 'a')
  const isMistake = (error: unknown): boolean => error === mistake
  await assert.rejects(failing.next(), isMistake)
  await assert.rejects(failing.next(), isMistake)
  assert.throws(() => failing.take(), isMistake)
  assert.deepEqual((await waiting).index, 1)
  assert.deepEqual(await shapes(other), [['b'], ['c']])
  assert.equal(broker.status.subscriptions, 1)
})

test('24. a custom filter that throws while its reader waits rejects the wait', async () => {
  const broker = createBroker()
  const mistake = new Error('a mistake in a filter')
  const failing = broker.subscribe({
    filter: () => {
      throw mistake
    },
  })
  const rejected = assert.rejects(failing.next(), (error) => error === mistake)
  await publish(broker, 'a')
  await rejected
  assert.equal(broker.status.subscriptions, 0)
})

test('a batch of which all events match is given as it is, one of which none match is empty', () => {
  const pending = encodeEvents(['a', 'b', 'c'].map((key) => event(key)))
  const batch = new StoredBatch('epoch', 1, pending)
  assert.equal(new Filter().select(batch), batch.events)
  assert.equal(new Filter({ topics: { Job: ['a', 'b', 'c'] } }).select(batch), batch.events)
  assert.deepEqual(new Filter({ topics: { Job: ['c', 'a'] } }).select(batch), [batch.events[0], batch.events[2]])
  assert.deepEqual(new Filter({ topics: { Job: ['x'] } }).select(batch), [])
  assert.deepEqual(new Filter({ topics: {} }).select(batch), [])
})

test('wrong filters are refused by name', () => {
  const wrong: [object, RegExp][] = [
    [{ topics: null }, /^topics must be an object/],
    [{ topics: [] }, /^topics must be an object/],
    [{ topics: 'Job' }, /^topics must be an object.*"Job"/],
    [{ topics: { Job: '*' } }, /^topics\["Job"\] must be an array of strings, got "\*"/],
    [{ topics: { Job: ['a', null] } }, /^topics\["Job"\]/],
    [{ topics: { 'a\nb': 1 } }, /^topics\["a\\nb"\]/],
    [{ topics: new Map([['Job', ['*']]]) }, /^topics must be an object/],
    [{ namespaces: 'prod' }, /^namespaces must be an array of strings/],
    [{ namespaces: [1] }, /^namespaces must be an array of strings/],
    [{ filter: 7 }, /^filter must be a function/],
  ]
  for (const [options, message] of wrong) {
    assert.throws(() => new Filter(options), withCode('INVALID', message), String(message))
  }
})

const few = fc.constantFrom('a', 'b', 'c')
const topicFilters = fc.dictionary(
  fc.constantFrom('Job', 'Node', '*'),
  fc.array(fc.oneof(few, fc.constant('*')), { maxLength: 3 }),
)
const inputs = fc.record({
  topic: fc.constantFrom('Job', 'Node', 'Other'),
  key: fc.constantFrom('a', 'b', 'c', 'd', '*'),
  filterKeys: fc.array(few, { maxLength: 3 }),
})

/** What rule 24 says about topics and keys, as plainly as possible. */
function wants(
  topics: Record<string, string[]>,
  { topic, key, filterKeys }: { topic: string; key: string; filterKeys: string[] },
): boolean {
  return Object.entries(topics).some(
    ([wantedTopic, keys]) =>
      (wantedTopic === '*' || wantedTopic === topic) &&
      keys.some((wanted) => wanted === '*' || wanted === key || filterKeys.includes(wanted)),
  )
}

test('24. every filter wants what the rule says', () => {
  fc.assert(
    fc.property(topicFilters, inputs, (topics, input) => {
      assert.equal(matches({ topics }, input), wants(topics, input))
    }),
    { numRuns: 2000 },
  )
})

test('the index finds exactly the readers whose topics and keys want an event', () => {
  fc.assert(
    fc.property(fc.array(topicFilters), fc.array(fc.nat(20)), inputs, (filters, leaving, input) => {
      const readers = filters.map((topics) => ({ topics, filter: new Filter({ topics }) }))
      const index = new FilterIndex<(typeof readers)[number]>()
      for (const reader of readers) index.add(reader)
      const left = new Set(leaving.map((position) => readers[position]))
      for (const reader of left) if (reader) index.delete(reader)
      const found = new Set<unknown>()
      index.visit(stored(input), (reader) => found.add(reader))
      const expected = readers.filter((reader) => !left.has(reader) && wants(reader.topics, input))
      assert.deepEqual(found, new Set(expected))
    }),
    { numRuns: 1000 },
  )
})
