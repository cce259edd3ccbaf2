import assert from 'node:assert/strict'
import { SpillwayError, type StreamEvent } from 'spillway'
import type { FuzzTarget } from 'spillway/testing'
import { budget, eventBudget } from '../../src/filter/budget.ts'
import { compileFilter } from '../../src/filter-expression.ts'

const payloads = [
  '{"total":120,"ok":true,"none":null,"id":"ord-1","items":[{"price":5,"tags":["a"]},{"price":50}],"at":"2026-05-01T12:00:00Z"}',
  '{"__proto__":{"total":1},"constructor":2,"$typeName":"google.protobuf.Any","items":{"total":1},"total":"120","id":[]}',
  `{"items":${JSON.stringify(Array.from({ length: 300 }, (_, i) => i))},"id":"${'a'.repeat(5_000)}"}`,
  'null',
  '1e308',
  '"\\ud83d\\ude00"',
]
const events: readonly StreamEvent[] = payloads.map((payload) => ({
  topic: 'Order',
  type: 'OrderPlaced',
  key: 'A1',
  namespace: 'eu',
  filterKeys: ['a', '__proto__'],
  payload: JSON.parse(payload),
}))

/** [S11, S12] Filter expressions: refused with a message for people, or a test that only says yes or no, within its budget. */
export const filters: FuzzTarget = {
  name: 'filter expression',
  // The parser of CEL takes 50 to 200 microseconds.
  share: 0.05,
  corpus: [
    'payload.total > 100',
    'topic == "Order" && key in ["A1", "B"]',
    'payload.items.exists(i, i.price > 10)',
    'payload.items.map(i, i + i).filter(x, x != null).size() == 2',
    'payload.id.matches("^(a|b)+[0-9]{1,3}$")',
    'has(payload.none) ? payload.ok : !("a" in filterKeys)',
    '{"a": [1, 2.5, 3u, b"x"]} == payload["items"]',
    'timestamp(payload.at).getHours("UTC") - 1 < int("7")',
    'namespace.startsWith("""e""") || type(payload) == map // no\n',
  ],
  dictionary: [
    'payload.',
    'payload',
    'namespace',
    '.all(x, ',
    '.exists_one(x, x)',
    '.map(x, [x, x])',
    ' + ',
    ' && ',
    ' || ',
    ' == ',
    ' in ',
    '!',
    'true',
    '"a"',
    "r'\\",
    '"""',
    'size(',
    'matches("',
    '(a+)+$',
    '{1000}',
    'duration("1h")',
    '9223372036854775808',
    '.getHours("X")',
  ],
  run(text) {
    const filter = compiled(text)
    if (!filter) return
    for (const event of events) {
      assert.equal(typeof filter(event), 'boolean')
      const matches = filter(event)
      assert.equal(filter(event), matches)
      // What goes beyond the budget is refused, and nothing but the rest of the tree comes after it.
      assert.ok(!matches || budget.spent <= eventBudget)
    }
  },
}

function compiled(text: string): ((event: StreamEvent) => boolean) | undefined {
  try {
    return compileFilter(text)
  } catch (error) {
    assert.ok(error instanceof SpillwayError && error.code === 'INVALID', String(error))
    assert.match(error.message, /^The filter (at line \d+, column \d+: |must have )/)
    assert.ok(error.message.length < 300, error.message)
    assert.doesNotMatch(error.message, /[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/u)
    return undefined
  }
}
