import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SpillwayError, type StreamEvent } from 'spillway'
import { budget, eventBudget } from '../src/filter/budget.ts'
import { compileFilter } from '../src/filter-expression.ts'

const order = eventOf(
  `{"total":120,"n":1,"half":0.5,"none":null,"ok":true,"id":"ord-1234","at":"2026-05-01T12:00:00Z",
    "items":[{"price":5,"tags":["a"]},{"price":50,"tags":[]}],"nested":{"a":{"b":1}},"empty":{},
    "__proto__":7,"constructor":8,"$typeName":"google.protobuf.Struct","a-b":1}`,
)

function eventOf(payload: string): StreamEvent {
  const names = { topic: 'Order', type: 'OrderPlaced', key: 'A1', namespace: 'eu', filterKeys: ['k1', 'k2'] }
  return { ...names, payload: JSON.parse(payload) }
}

function refused(source: string): string {
  let message = ''
  assert.throws(
    () => compileFilter(source),
    (error) => {
      assert.ok(error instanceof SpillwayError, String(error))
      assert.equal(error.code, 'INVALID')
      assert.ok(error.message.length < 300, error.message)
      assert.doesNotMatch(error.message, /[\p{Cc}\p{Cf}]/u)
      message = error.message
      return true
    },
    source.slice(0, 80),
  )
  return message
}

for (const [expression, matches] of [
  ['true', true],
  ['false', false],
  ['topic == "Order" && type == "OrderPlaced" && key == "A1" && namespace == "eu"', true],
  ['topic.startsWith("Ord") && key.endsWith("1") && type.contains("Pl")', true],
  [
    'payload.namespace == "eu" || namespace != "eu" || "namespace" == key || namespace in ["eu"] // namespace\n && true',
    true,
  ],
  ["r\"\\namespace\" == \"\\\\namespace\" && '''a\n\"namespace'''.size() == 12", true],
  ['key in ["A1", "B2"]', true],
  ['"k2" in filterKeys && size(filterKeys) == 2', true],
  ['payload.total > 100', true],
  ['payload.total > 100.5 && payload.total <= 120', true],
  ['payload.n == 1 && payload.n == 1.0 && payload.n == 1u', true],
  ['payload.n != 1', false],
  ['payload.half == 0.5 && payload.half < 1', true],
  ['payload.n in [1, 2]', true],
  ['payload.n + 1 == 2 && 3 - payload.n == 2 && payload.n * 2 == 2 && payload.n / 2 == 0.5', true],
  ['payload.total % 7 == 1', true],
  ['-payload.n == -1', true],
  ['int(payload.n) == 1 && type(payload.n) == double', true],
  ['payload.ok', true],
  ['!payload.ok', false],
  ['payload.ok ? payload.n == 2 : true', false],
  ['payload["total"] == 120 && payload["a-b"] == 1', true],
  ['payload.nested.a.b == 1 && payload.nested == {"a": {"b": 1}}', true],
  ['payload.none == null', true],
  ['has(payload.none) && "none" in payload', true],
  ['has(payload.missing) || "missing" in payload', false],
  ['has(payload.nested.a) && !has(payload.nested.b)', true],
  ['payload.items[1].price == 50', true],
  ['payload.items.exists(item, item.price > 10)', true],
  ['payload.items.all(item, item.price > 10)', false],
  ['payload.items.exists_one(item, item.price > 10)', true],
  ['payload.items.filter(item, item.price > 10).size() == 1', true],
  ['payload.items.map(item, item.price) == [5, 50]', true],
  ['payload.items.map(item, item.price > 10, item.price) == [50]', true],
  ['payload.items.exists(item, item.tags.exists(tag, tag == "a"))', true],
  ['payload.nested.exists(name, name == "a")', true],
  ['payload.items.exists(payload, payload.price == 5)', true],
  ['payload.id.matches("^ord-[0-9]+$")', true],
  ['payload.id.matches("^[0-9]+$")', false],
  ['timestamp(payload.at) < timestamp("2027-01-01T00:00:00Z")', true],
  ['timestamp(payload.at).getHours("Europe/Berlin") == 14', true],
  ['timestamp("2026-05-02T12:00:00Z") - timestamp(payload.at) == duration("24h")', true],
] as const) {
  test(`${expression} is ${matches}`, () => {
    const filter = compileFilter(expression)
    for (let i = 0; i < 2; i++) assert.equal(filter(order), matches)
  })
}

for (const expression of [
  'payload.missing == 1',
  '!(payload.missing == 1)',
  'payload.missing.deeper == 1',
  'payload.items[7].price == 5',
  'payload.items[-1] == 1',
  'payload.id > 5',
  'payload.id + 1 == 2',
  'payload.ok + 1 == 2',
  'payload.n && true',
  'payload.total',
  'payload',
  'payload.n.startsWith("1")',
  'payload.n.exists(x, true)',
  'timestamp(payload.id) == timestamp(payload.id)',
  'int(payload.id) == 1',
  '1 / 0 == 1',
  'payload.items.all(item, item.missing == 1)',
]) {
  test(`an event on which ${expression} fails does not match, and nothing is thrown`, () => {
    assert.equal(compileFilter(expression)(order), false)
  })
}

test('a failed part does not matter where the other decides', () => {
  assert.equal(compileFilter('payload.missing == 1 || payload.ok')(order), true)
  assert.equal(compileFilter('payload.items.exists(item, item.missing == 1 || item.price == 50)')(order), true)
})

test('any JSON value is a payload', () => {
  for (const [payload, expression] of [
    ['null', 'payload == null'],
    ['"text"', 'payload == "text"'],
    ['-0', 'payload == 0'],
    ['1e21', 'payload > 9223372036854775807'],
    ['9007199254740991', 'payload == 9007199254740991'],
    ['[[], {}]', 'payload == [[], {}] && payload[1].size() == 0'],
    ['true', 'payload'],
  ] as const) {
    assert.equal(compileFilter(expression)(eventOf(payload)), true, expression)
  }
})

test('S11: only own members of a payload are seen', () => {
  for (const name of ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'valueOf', '__defineGetter__']) {
    for (const expression of [
      `has(payload.empty.${name})`,
      `"${name}" in payload.empty`,
      `payload.empty.${name} != 1`,
    ]) {
      assert.equal(compileFilter(expression)(order), false, expression)
    }
    for (const list of ['payload.items', 'payload.id', 'payload.n', 'filterKeys']) {
      assert.equal(compileFilter(`has(${list}.${name}) || ${list}["${name}"] != 1`)(order), false)
    }
    assert.match(refused(`${name} == 1`), /is not known/)
    assert.match(refused(`${name}(1) == 1`), /there is no function/)
  }
  assert.equal(compileFilter('payload.__proto__ == 7 && payload.constructor == 8')(order), true)
  assert.equal(compileFilter('payload["$typeName"] == "google.protobuf.Struct"')(order), true)
  assert.equal(compileFilter('[payload, payload.items[0]].all(x, x.size() > 0)')(order), true)
})

for (const [expression, expected] of [
  ['', /line 1, column 1: it ends too early\.$/],
  ['payload.total > > 3', /line 1, column 15: unexpected ">"/],
  ['topic == "Order"\n  && total > 3', /line 2, column 6: "total" is not known\. Known: topic, type, key,/],
  ['topic == "Order" &&\r\n\tfoo(key)', /line 2, column 2: there is no function "foo"/],
  ['topic == "Order', /line 1, column/],
  ['topic == "\\ud800"', /line 1, column 11: an escape stands for no character/],
  ['topic', /column 1: this is neither true nor false/],
  ['"a" + topic', /column 5: this is neither true nor false/],
  ['filterKeys', /neither true nor false/],
  ['[true]', /neither true nor false/],
  ['{"a": true}', /neither true nor false/],
  ['1', /neither true nor false/],
  ['size(key)', /neither true nor false/],
  ['payload.ok ? key : 1', /neither true nor false/],
  ['key ? true : false', /column 1: this is neither true nor false/],
  ['payload.ok && key', /column 15: this is neither true nor false/],
  ['!(payload.ok || 1)', /column 17: this is neither true nor false/],
  ['payload.items.map(i, true)', /neither true nor false/],
  ['payload.items.exists(i, key)', /column 25: this is neither true nor false/],
  ['key.length == 1', /column 4: a text has no field "length"/],
  ['size(key, key) == 1', /size is not called with 2 arguments/],
  ['key.size(1) == 1', /size is not called on a value with 1 arguments/],
  ['startsWith(key, "a")', /startsWith is not called with 2 arguments/],
  ['google.protobuf.Struct{} == payload', /"google\.protobuf\.Struct" is not known/],
  ['key.matches(payload.pattern)', /column 20: the pattern of matches must be a literal text/],
  ['key.matches("(")', /column 13: "\(" is no pattern of RE2/],
  ['key.matches("a{1000}")', /the pattern needs more than 256 instructions/],
  ['key.matches("(a)\\\\1")', /is no pattern of RE2/],
  ['key.matches("(?=a)")', /is no pattern of RE2/],
  ['\u001b[2J', /column 1: unexpected "\\\\?u001b"/],
  [`payload.x == ${'y'.repeat(500)}`, /"y{50,}\.\.\." is not known/],
] as const) {
  test(`refused with its position: ${JSON.stringify(expression).slice(0, 60)}`, () => {
    assert.match(refused(expression), expected)
  })
}

test('S12: what is too long, has too many parts or nests too deep is refused', () => {
  assert.match(refused(Array(10_000).fill('payload.a == 1').join(' || ')), /at most 2048 characters, got 179996/)
  assert.match(refused(Array(100).fill('topic=="a"').join('||')), /more than 256 parts/)
  assert.match(refused('payload.a+'.repeat(33).concat('1 == 1')), /deeper than 32 levels/)
  for (const open of ['(', '[', '{1:', 'size(', '!(', 'payload[', '[1].all(x,', 'true?true:(', '-(']) {
    for (const times of [40, 200, Math.floor(2048 / open.length)]) refused(open.repeat(times))
  }
  for (const [open, close] of ['()', '[]'] as const) refused(`${open?.repeat(1000)}true${close?.repeat(1000)}`)
})

/** Patterns that make backtracking engines look at 2^n or n^k ways through a text. */
function* nastyPatterns(): Generator<string> {
  const parts = ['a+', 'a*', 'a?', '(a|a)', '(a|aa)', '(a|b|ab)', '[a-z]+', '.*', '(.|a)', '\\\\w+']
  for (const part of parts) {
    for (const repeat of ['*', '+', '{1,9}']) {
      for (const end of ['$', 'b', '(x|y)', '[^a]', '\\\\d', '!', 'c{2}']) yield `^(${part})${repeat}${end}`
    }
  }
}

test('S12: 200 nasty patterns do work in proportion to the text', () => {
  let tried = 0
  for (const pattern of nastyPatterns()) {
    const filter = compileFilter(`payload.matches("${pattern}")`)
    const spent = [20, 40, 80].map((length) => {
      filter(eventOf(JSON.stringify('a'.repeat(length))))
      return budget.spent
    })
    const [few, some, many] = spent as [number, number, number]
    assert.ok(many - some <= 2 * (some - few) + 1e-9, `${pattern}: ${spent}`)
    assert.ok(many < eventBudget)
    tried++
  }
  assert.ok(tried >= 200)
})

test('S12: 1,000 distinct filters each do their own small work', () => {
  const filters = Array.from({ length: 1000 }, (_, i) => compileFilter(`payload.total > ${i} && key != "k${i}"`))
  let spent = 0
  const matched = filters.filter((filter) => {
    const matches = filter(order)
    spent += budget.spent
    return matches
  })
  assert.equal(matched.length, 120)
  assert.ok(spent < 3 * 1000, `${spent} units`)
})

const large = eventOf(
  JSON.stringify({
    list: Array.from({ length: 5_000 }, (_, i) => i),
    text: 'a'.repeat(100_000),
    other: `${'a'.repeat(50_000)}b`,
    digits: '9'.repeat(100_000),
    map: Object.fromEntries(Array.from({ length: 5_000 }, (_, i) => [`k${i}`, i])),
  }),
)

for (const expression of [
  'payload.list.exists(a, a == -1)',
  'payload.list.exists(a, payload.list.exists(b, a + b == -1))',
  'payload.list.filter(a, a > 1).size() == 4998',
  'payload.list.map(a, a).size() == 5000',
  'payload.map.all(k, true)',
  '[1, 2, 3, 4, 5, 6, 7].all(a, [1, 2, 3, 4, 5, 6, 7].all(b, [1, 2, 3, 4, 5, 6, 7].all(c, a + b + c > 0)))',
  `["${'a'.repeat(500)}"]${'.map(x, x + x)'.repeat(16)}[0] != ""`,
  `[[1, 2, 3]]${'.map(x, x + x)'.repeat(16)}[0].size() > 0`,
  `[b"${'a'.repeat(500)}"]${'.map(x, x + x)'.repeat(16)}[0] != b""`,
  `${Array(9).fill('payload.text').join(' + ')} != ""`,
  '-1 in payload.list',
  'payload.list == payload.list',
  'payload.map == payload.map',
  'payload.text.contains(payload.other)',
  'payload.text.contains(key) || payload.text.contains("aaaaaaaab") || payload.text == ""',
  'size(payload.text) == 100000',
  'payload.text.matches("(a|aa)*b")',
  'int(payload.digits) > 0',
  '[1, 2, 3, 4, 5, 6, 7, 8].all(x, timestamp("2026-05-01T12:00:00Z").getHours("Europe/Berlin") == 14)',
]) {
  test(`what costs too much does not match: ${expression.slice(0, 60)}`, () => {
    assert.equal(compileFilter(expression)(large), false)
    // The one above the budget was refused before it was done.
    assert.ok(budget.spent > eventBudget || expression.includes('digits'))
  })
}

test('a long list is looked at as far as the budget goes', () => {
  for (const [last, matches] of [
    [30, true],
    [4_999, false],
  ] as const) {
    assert.equal(compileFilter(`payload.list.exists(n, n == ${last})`)(large), matches)
  }
})

test('the size of a payload is no cost where it is not looked at', () => {
  for (const expression of [
    'payload != null && payload.list.size() == 5000 && payload.map.size() == 5000',
    'payload.text.startsWith("aaa") && payload.text != "b" && payload.map.k17 == 17 && payload.list[4999] == 4999',
    '"k4999" in payload.map && has(payload.map.k1) && payload.list != [1] && payload.map != payload.list',
  ]) {
    assert.equal(compileFilter(expression)(large), true, expression)
    assert.ok(budget.spent < 20, `${budget.spent}`)
  }
})

test('a budget is for one event, not for the life of a filter', () => {
  const filter = compileFilter('payload.items.exists(item, item.price > 10)')
  for (let i = 0; i < 500; i++) assert.equal(filter(order), true)
  assert.ok(budget.spent < 50)
})

test('errors keep their stack traces outside of filters', () => {
  const before = Error.stackTraceLimit
  compileFilter('payload.missing == 1')(order)
  assert.equal(Error.stackTraceLimit, before)
})
