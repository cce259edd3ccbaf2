import assert from 'node:assert/strict'
import { formatCursor, parseCursor } from '../../src/core/cursor.ts'
import { Filter } from '../../src/core/filter.ts'
import { checkNames, expectedIndex, parseFlag, parseQuery, parseTopics, single, startOf } from '../../src/http/query.ts'
import { type FuzzTarget, unlessRefused } from '../../src/testing/fuzz.ts'

const known = ['topic', 'namespace', 'from', 'last', 'exact', 'expected']
const loneSurrogate = /\p{Cs}/u

/** [S13] The query string of a request. */
export const query: FuzzTarget = {
  name: 'query string',
  corpus: [
    'topic=Order:A1&topic=Order:*&topic=Job&namespace=eu&from=latest',
    'topic=%C3%A9%F0%9F%98%80:a%3Ab&from=e-1:7&exact=true',
    'from=2026-01-01T00:00:00.5+02:00&namespace=',
    'last=10&exact=false',
    'expected=7',
    'topic=__proto__:a&topic=constructor&topic=T:__proto__',
    '&&=&topic&a=b=c+d',
  ],
  dictionary: ['topic=', '&topic=', 'from=', 'last=', 'expected=', 'exact=', 'earliest', 'Z', '2026-02-31T24:00:00Z'],
  run(text) {
    const parameters = unlessRefused(() => parseQuery(text), 'INVALID')
    if (!parameters) return
    // A browser decodes the same, but puts U+FFFD where an escape is no UTF-8 and where a surrogate stands alone.
    if (!loneSurrogate.test(text)) {
      assert.deepEqual(pairsOf(parameters), sorted([...new URLSearchParams(text.replace(/^\?/, '%3F'))]))
    }
    unlessRefused(() => checkNames(parameters, known), 'INVALID')
    checkStart(parameters)
    checkTopics(parameters)
    for (const name of known) unlessRefused(() => parseFlag(name, single(parameters, name)), 'INVALID')
    const expected = unlessRefused(() => expectedIndex(text), 'INVALID')
    assert.ok(expected === undefined || (Number.isSafeInteger(expected) && expected >= 0))
  },
}

function checkStart(parameters: Map<string, string[]>): void {
  const start = unlessRefused(() => startOf(parameters, undefined), 'INVALID')
  if (typeof start !== 'object') return
  const count = 'last' in start ? start.last : (start as { since: number }).since
  assert.ok(Number.isSafeInteger(count) && count >= 0)
}

function checkTopics(parameters: Map<string, string[]>): void {
  const values = parameters.get('topic')
  const topics = unlessRefused(() => parseTopics(values), 'INVALID')
  if (!topics) return
  const named = Object.entries(topics).flatMap(([topic, keys]) => keys.map((key) => [topic, key]))
  assert.equal(named.length, values?.length ?? 1)
  for (const value of values ?? []) assert.ok(Object.hasOwn(topics, value.split(':', 1)[0] as string))
  const filter = new Filter({ topics })
  for (const [topic = '', key = ''] of named) {
    const event = { topic, type: 't', key, namespace: '', filterKeys: [], payloadText: 'null' }
    assert.ok(filter.matches(event as unknown as Parameters<Filter['matches']>[0]))
  }
}

/** In the order of their names, as a map keeps no other among several. */
function pairsOf(parameters: Map<string, string[]>): string[][] {
  return sorted([...parameters].flatMap(([name, values]) => values.map((value) => [name, value])))
}

function sorted(pairs: string[][]): string[][] {
  return pairs.sort(([a = ''], [b = '']) => (a < b ? -1 : a > b ? 1 : 0))
}

/** A cursor, as readers give it back. */
export const cursor: FuzzTarget = {
  name: 'cursor',
  corpus: ['m1a2b3-4c5d:0', 'e-1:9007199254740991', 'A_z-9:1', `${'e'.repeat(64)}:1234567890123456`],
  dictionary: ['9007199254740992', ':0', ':-', 'e-1'],
  run(text) {
    const parsed = unlessRefused(() => parseCursor(text), 'INVALID')
    if (!parsed) return
    assert.ok(Number.isSafeInteger(parsed.index) && parsed.index >= 0)
    assert.equal(formatCursor(parsed.epoch, parsed.index), text)
  },
}
