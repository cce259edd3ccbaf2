import assert from 'node:assert/strict'
import { Permit, type Rule, type Rules } from '../../src/core/rights.ts'
import { type FuzzTarget, unlessRefused } from '../../src/testing/fuzz.ts'
import type { Random } from '../../src/testing/random.ts'

/** Rules as a token or a configuration brings them. */
export const rights: FuzzTarget = {
  name: 'rights',
  corpus: [
    '[{"topics":{"T":["*"],"*":["a"]}},{"effect":"deny","topics":{"T":["b"]},"namespaces":["eu"]}]',
    '[{"effect":"allow","namespaces":["*",""]}]',
    '[{"topics":{"T":[]}},{"topics":{"__proto__":["a"],"constructor":["*"]}}]',
    '"all"',
    '[]',
  ],
  dictionary: ['"effect":"deny",', '"topics":{', '"T":["*"]', '"namespaces":["eu"]', '{},', '"all"'],
  run(text, random) {
    const rules = changed(parsed(text), random) as Rules
    const permit = unlessRefused(() => new Permit('rules', rules), 'INVALID')
    if (!permit) return
    const list: readonly Rule[] = rules === 'all' ? [{}] : rules
    assert.equal(new Permit('rules', rules).key, permit.key)
    const nothing = new Permit('rules', [...list, { effect: 'deny' }])
    const everything = new Permit('rules', [...list.filter(({ effect }) => effect !== 'deny'), {}])
    for (const event of events) {
      assert.equal(nothing.mayRead(event) || nothing.mayPublish(event), false, 'deny beats allow')
      assert.equal(everything.mayRead(event) && everything.mayPublish(event), true)
      if (permit.mayPublish(event)) assert.ok(permit.mayRead(event), 'who publishes under all keys reads by one')
      if (permit.mayRead(event)) assert.ok(permit.reaches(event.topic) && permit.reaches('*'))
    }
  },
}

const names = ['T', 'U', '__proto__', 'constructor', '*']
const events = names.flatMap((topic) =>
  ['', 'eu', 'toString'].flatMap((namespace) => [
    { topic, namespace, key: 'a', filterKeys: [] },
    { topic, namespace, key: '', filterKeys: ['b', '__proto__'] },
  ]),
)

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

/** Most changes of the text leave no JSON; these leave JSON of other types. */
function changed(value: unknown, random: Random): unknown {
  if (random.oneIn(12)) return random.pick<unknown>([null, 0, '', '*', [], {}, [null], ['*'], undefined, { T: ['*'] }])
  if (Array.isArray(value)) return value.map((element) => changed(element, random))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, changed(member, random)]))
}
