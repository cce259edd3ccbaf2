import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type EventInput, encodeEvents, JsonText, StoredBatch } from '../../src/core/event.ts'
import { withCode } from '../support/waiting.ts'

const good: EventInput = { topic: 'Job', type: 'JobRegistered' }

/** Refused with `INVALID` and a message that has all of `parts`: the field, what was expected, what came. */
function refused(event: unknown, ...parts: string[]): void {
  assert.throws(
    () => encodeEvents([event as EventInput]),
    (error) => {
      withCode('INVALID')(error)
      for (const part of parts)
        assert.ok((error as Error).message.includes(part), `${(error as Error).message}: ${part}`)
      assert.equal((error as Error).message.split(/[\r\n]/).length, 1)
      return true
    },
  )
}

/** The payload as it is stored. */
function stored(payload: unknown): string | undefined {
  return encodeEvents([{ ...good, payload }]).events[0]?.payloadText
}

function nested(depth: number): unknown {
  let value: unknown = []
  for (let n = 1; n < depth; n++) value = n % 2 ? { a: value } : [value]
  return value
}

test('an event keeps all that was given, and absent fields have their empty values', () => {
  const { events } = encodeEvents([
    good,
    { topic: 'Job', type: 'T', key: 'web/1', namespace: 'prod', filterKeys: ['a', '日本', ''], payload: { a: [1] } },
  ])
  assert.deepEqual(events[0]?.view, {
    ...{ topic: 'Job', type: 'JobRegistered', key: '', namespace: '', filterKeys: [], payload: null },
  })
  assert.deepEqual(events[1]?.view, {
    ...{ topic: 'Job', type: 'T', key: 'web/1', namespace: 'prod', filterKeys: ['a', '日本', ''], payload: { a: [1] } },
  })
})

test('what is published is copied: later changes by the publisher reach no reader', () => {
  const filterKeys = ['a']
  const payload = { count: 1 }
  const { events } = encodeEvents([{ ...good, filterKeys, payload }])
  filterKeys.push('b')
  payload.count = 2
  assert.deepEqual([events[0]?.filterKeys, events[0]?.view.payload], [['a'], { count: 1 }])
})

for (const field of ['topic', 'type'] as const) {
  test(`${field} must be a non-empty string`, () => {
    refused({ ...good, [field]: undefined }, `event.${field}`, 'non-empty string', 'got undefined')
    refused({ ...good, [field]: '' }, `event.${field}`, 'non-empty string', 'got ""')
  })
}

const nameFields = {
  topic: (value: unknown) => ({ ...good, topic: value }),
  type: (value: unknown) => ({ ...good, type: value }),
  key: (value: unknown) => ({ ...good, key: value }),
  namespace: (value: unknown) => ({ ...good, namespace: value }),
  'filterKeys[1]': (value: unknown) => ({ ...good, filterKeys: ['a', value] }),
}

for (const [field, eventWith] of Object.entries(nameFields)) {
  const at = `event.${field}`

  test(`${field} must be a string`, () => {
    refused(eventWith(7), at, 'must be a string', 'got 7')
    refused(eventWith({}), at, 'must be a string', 'got an object')
    refused(eventWith(['a']), at, 'must be a string', 'got an array of 1')
    refused(eventWith(7n), at, 'must be a string', 'got 7n')
    refused(eventWith(true), at, 'must be a string', 'got true')
    refused(eventWith(Symbol('s')), at, 'must be a string', 'got Symbol(s)')
  })

  test(`${field} has at most 1,024 UTF-16 units`, () => {
    encodeEvents([eventWith('x'.repeat(1024)) as EventInput])
    refused(eventWith('x'.repeat(1025)), at, '1024', 'got 1025')
  })

  test(`${field} holds no control characters and no lone surrogates`, () => {
    for (let code = 0; code < 0xa0; code++) {
      const value = `a${String.fromCharCode(code)}b`
      if (/\p{Cc}/u.test(value)) refused(eventWith(value), at, 'control characters')
    }
    for (const value of ['a\ud800b', '\udfff', '\udc00\ud800']) refused(eventWith(value), at, 'surrogates')
    encodeEvents([eventWith('😀 日本 é \u2028\u00a0') as EventInput])
  })
}

test('topic is neither * nor holds a colon, which mean something to readers', () => {
  refused({ ...good, topic: '*' }, 'event.topic', 'got "*"')
  refused({ ...good, topic: 'a:b' }, 'event.topic', 'got "a:b"')
  encodeEvents([{ ...good, topic: 'a*b', key: 'a:b:*' }])
})

test('filterKeys is an array of at most 256 strings', () => {
  encodeEvents([{ ...good, filterKeys: Array.from({ length: 256 }, String) }])
  refused(
    { ...good, filterKeys: Array.from({ length: 257 }, String) },
    'event.filterKeys',
    '256',
    'got an array of 257',
  )
  refused({ ...good, filterKeys: 'abc' }, 'event.filterKeys', 'array', 'got "abc"')
  refused({ ...good, filterKeys: { length: 1 } }, 'event.filterKeys', 'array', 'got an object')
  refused({ ...good, filterKeys: null }, 'event.filterKeys', 'array', 'got null')
  refused({ ...good, filterKeys: new Array(2) }, 'event.filterKeys')
})

test('an event is an object without unknown fields', () => {
  for (const value of [undefined, null, 7, 'event', [good], () => good]) refused(value, 'event must be an object')
  refused({ ...good, Payload: 1 }, 'unknown field "Payload"', 'payload')
  refused(JSON.parse('{"topic":"a","type":"b","__proto__":{"key":"c"}}'), 'unknown field "__proto__"')
})

test('an error says which event of a batch it means', () => {
  assert.throws(
    () => encodeEvents([good, { ...good, key: 'a\nb' }]),
    withCode('INVALID', /^events\[1\]\.key .*"a\\nb"/),
  )
})

test('a batch of events with holes is refused', () => {
  assert.throws(() => encodeEvents(new Array(2)), withCode('INVALID'))
})

test('the wanted index is an integer from 1 to 2^53-1', () => {
  for (const index of [0, -1, 1.5, Number.NaN, 2 ** 53, '7']) {
    assert.throws(() => encodeEvents([good], index as number), withCode('INVALID', /^index must be an integer from 1/))
  }
  assert.equal(encodeEvents([good], Number.MAX_SAFE_INTEGER).index, Number.MAX_SAFE_INTEGER)
})

test('a payload that JSON cannot say is refused', () => {
  const cyclic: { self?: unknown } = {}
  cyclic.self = cyclic
  for (const payload of [cyclic, 7n, { deep: [7n] }, () => 1, Symbol('s')]) {
    refused({ ...good, payload }, 'event.payload must be a JSON value')
  }
  const throwing = {
    toJSON: () => {
      throw new Error('a\nb')
    },
  }
  refused({ ...good, payload: throwing }, 'event.payload must be a JSON value')
  refused({ ...good, payload: { toJSON: () => undefined } }, 'event.payload must be a JSON value')
})

test('a payload nests at most 64 levels deep, given as a value or as text', () => {
  for (const wrap of [(value: unknown) => value, (value: unknown) => new JsonText(JSON.stringify(value))]) {
    assert.equal(stored(wrap(nested(64))), JSON.stringify(nested(64)))
    refused({ ...good, payload: wrap(nested(65)) }, 'event.payload', '64')
  }
  refused({ ...good, payload: new JsonText('['.repeat(10_000) + ']'.repeat(10_000)) }, 'event.payload', '64')
  refused({ ...good, payload: nested(10_000) }, 'event.payload')
  const brackets = '[{'.repeat(100)
  for (const text of [brackets, `"${brackets}`, `\\"${brackets}`, `\\\\${brackets}`]) {
    assert.equal(stored(text), JSON.stringify(text), 'brackets in a string nest nothing')
  }
  refused({ ...good, payload: ['\\', nested(64)] }, 'event.payload', '64')
})

test('every JSON value comes back as it was published', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 20 }), (payload) => {
      const event = encodeEvents([{ ...good, payload }]).events[0]
      assert.ok(event)
      assert.equal(event.payloadText, JSON.stringify(payload))
      assert.deepEqual(event.view.payload, JSON.parse(JSON.stringify(payload)))
      assert.doesNotMatch(event.payloadText, /[\r\n]/)
    }),
  )
})

test('JSON that is text already is kept byte for byte', () => {
  const texts = [
    '{"CreateTime":1600000000000000001}',
    '[1.0, 1e400, 0.10000000000000000000001, -0]',
    '{"a":1,"a":2,"__proto__":{"x":1},"constructor":null}',
    '  "\\u00e9\\ud800 é \u2028 😀"\t',
    'null',
  ]
  for (const text of texts) assert.equal(stored(new JsonText(text)), text)
})

test('line breaks between the tokens of JSON text become spaces, so that it fits on one line', () => {
  assert.equal(stored(new JsonText('{\r\n  "a": "x\\ny",\n\t"b": 1\r}\n')), '{    "a": "x\\ny", \t"b": 1 } ')
})

test('text that is not JSON is refused as a JsonText', () => {
  for (const text of ['', '{', "{'a':1}", 'undefined', 'NaN', '01', '1 2', '"a\nb"', '\ufeff1', '[1,]']) {
    assert.throws(() => new JsonText(text), withCode('INVALID', /^JsonText: /), text)
  }
  for (const value of [7, null, true, ['1']]) {
    assert.throws(() => new JsonText(value as unknown as string), withCode('INVALID'), String(value))
  }
})

test('JSON text with a lone surrogate, which has no UTF-8, is refused, since readers would get something else', () => {
  for (const text of ['"\ud800"', '{"a\udfff":1}']) {
    assert.throws(() => stored(new JsonText(text)), withCode('INVALID'), JSON.stringify(text))
  }
  assert.equal(stored('\ud800'), '"\\ud800"')
})

test('keys that mean something to JavaScript reach readers as plain data', () => {
  const payload = JSON.parse('{"__proto__":{"polluted":true},"constructor":{"prototype":1}}')
  const view = encodeEvents([{ ...good, payload }]).events[0]?.view.payload as Record<string, unknown>
  assert.deepEqual(Object.keys(view), ['__proto__', 'constructor'])
  assert.equal(({} as Record<string, unknown>).polluted, undefined)
})

test('the size of a batch is the UTF-8 length of its names and payloads', () => {
  const text = fc.string({ unit: 'binary' }).filter((value) => !/[\p{Cc}\p{Cs}]/u.test(value) && value.length < 1000)
  fc.assert(
    fc.property(text, fc.array(text), fc.jsonValue(), (key, filterKeys, payload) => {
      const { bytes } = encodeEvents([{ ...good, key, filterKeys, payload }, good])
      const names = ['Job', 'JobRegistered', 'Job', 'JobRegistered', key, ...filterKeys]
      assert.equal(bytes, Buffer.byteLength(`${names.join('')}${JSON.stringify(payload)}null`))
    }),
  )
})

test('a stored batch knows its cursor, and makes its view once', () => {
  const batch = new StoredBatch(
    'epoch',
    7,
    encodeEvents([
      { ...good, payload: 1 },
      { ...good, payload: 2 },
    ]),
  )
  assert.equal(batch.cursor, 'epoch:7')
  assert.equal(batch.view, batch.view)
  assert.deepEqual(
    batch.view.events.map(({ payload }) => payload),
    [1, 2],
  )
  assert.equal(batch.viewOf(batch.events.slice(1)).events[0], batch.view.events[1])
})

test('a JsonText inside another payload is refused', () => {
  refused({ ...good, payload: { part: new JsonText('1') } }, 'event.payload', 'JsonText')
})
