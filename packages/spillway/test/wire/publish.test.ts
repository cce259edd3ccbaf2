import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type BatchInput, JsonText } from '../../src/core/event.ts'
import { parseBatch, parseBatches } from '../../src/wire/publish.ts'
import { breaks, spaced } from '../support/injections.ts'
import { seededRandom } from '../support/random.ts'
import { withCode } from '../support/waiting.ts'

/** The events of a batch with their payloads as text. */
function plain({ events, index }: BatchInput): { events: unknown[]; index: number | undefined } {
  const inText = events.map(({ payload, ...names }) =>
    payload instanceof JsonText ? { ...names, payload: payload.text } : names,
  )
  return { events: inText, index }
}

test('an event, an array of events and events with an index are batches', () => {
  const event = { topic: 'T', type: 't', payload: '1.0' }
  const text = '{"topic":"T","type":"t","payload":1.0}'
  for (const [body, index] of [
    [text, undefined],
    [`[${text}]`, undefined],
    [`{"events":[${text}]}`, undefined],
    [`{"index":7,"events":[${text}]}`, 7],
    [` {\n"events" : [ ${text} ] ,\t"index" : 7 } `, 7],
  ] as const) {
    assert.deepEqual(plain(parseBatch(body, 'body')), { events: [event], index }, body)
  }
})

test('errors call a batch by its line', () => {
  assert.deepEqual(parseBatches('\n \n'), [])
  assert.equal(parseBatches('[]\r\n[]\n\n[]').length, 3)
  assert.throws(() => parseBatches('[]\n\n{"a":'), withCode('INVALID', /^line 3 is not JSON: /))
  assert.throws(() => parseBatches('[]\n[{},5]'), withCode('INVALID', /^line 2\[1\] must be an event, got 5\.$/))
})

test('property: a payload is cut out as it was written, whatever stands around it', () => {
  const seed = seededRandom('payloads').below(2 ** 31)
  const string = fc.oneof(
    fc.constantFrom(...breaks, '{', '}', '[', ']', ',', ':', '\\"', '\\\\', 'payload', '__proto__'),
    fc.string({ unit: 'binary', maxLength: 4 }),
  )
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 4 },
      string,
      fc.integer(),
      fc.boolean(),
      fc.constant(null),
      fc.array(tie('value'), { maxLength: 3 }),
      fc
        .array(fc.tuple(string, tie('value')), { maxLength: 3 })
        .map((members) => Object.fromEntries(members) as unknown),
    ),
  }))
  const spaces = fc.array(fc.constantFrom('', ' ', '\n', '\r', '\r\n', '\t'), { minLength: 1, maxLength: 9 })
  const names = fc.record({ topic: string, type: string, key: string })
  const events = fc.array(fc.tuple(names, value, fc.constantFrom(0, 1, 2, 3)), { minLength: 1, maxLength: 3 })
  fc.assert(
    fc.property(events, spaces, (events, spaces) => {
      let turn = 0
      const space = () => spaces[turn++ % spaces.length] as string
      const payloads: string[] = []
      const texts = events.map(([names, payload, place]) => {
        const text = spaced(payload, space)
        payloads.push(text.trim())
        const members = Object.entries(names).map(
          ([name, value]) => `${JSON.stringify(name)}${space()}:${space()}${JSON.stringify(value)}`,
        )
        members.splice(place, 0, `${space()}"payload"${space()}:${text}`)
        return `{${space()}${members.join(`${space()},${space()}`)}}`
      })
      const list = `[${space()}${texts.join(`${space()},${space()}`)}${space()}]`
      const expected = events.map(([names], position) => ({ ...names, payload: payloads[position] }))
      assert.deepEqual(plain(parseBatch(list, 'body')).events, expected)
      assert.deepEqual(plain(parseBatch(`{"index":3,"events":${list}}`, 'body')), { events: expected, index: 3 })
      assert.deepEqual(plain(parseBatch(texts[0] as string, 'body')).events, expected.slice(0, 1))
    }),
    { seed, numRuns: 3000 },
  )
})

test('property: no text makes the reader fail other than with INVALID, or hang', () => {
  const seed = seededRandom('garbage').below(2 ** 31)
  const token = fc.constantFrom(
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '"',
    '\\',
    '"a"',
    '"events"',
    '"topic"',
    '"__proto__"',
    '1',
    'null',
    ' ',
    '\n',
    'é',
  )
  fc.assert(
    fc.property(fc.array(token, { maxLength: 20 }), (tokens) => {
      const text = tokens.join('')
      for (const parse of [() => parseBatch(text, 'body'), () => parseBatches(text)]) {
        try {
          parse()
        } catch (error) {
          withCode('INVALID')(error)
        }
      }
    }),
    { seed, numRuns: 20_000 },
  )
})
