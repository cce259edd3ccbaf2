import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createBroker, nomadRightsEvents } from '../../src/core/broker.ts'
import { SpillwayError } from '../../src/core/errors.ts'
import type { Batch } from '../../src/core/event.ts'
import { everything, Permit, type Rights, RightsChanges, type Rule } from '../../src/core/rights.ts'
import type { Subscription } from '../../src/core/subscription.ts'
import type { TopicFilter } from '../../src/core/topics.ts'
import { seededRandom } from '../support/random.ts'
import { deferred, turn, withCode } from '../support/waiting.ts'

const named = (topic: string, key = '', namespace = '', filterKeys: readonly string[] = []) => ({
  topic,
  key,
  namespace,
  filterKeys,
})

for (const [what, rules, allowed, denied] of [
  ['all allows all', 'all', [named('A'), named('B', 'k', 'n')], []],
  ['no rules allow nothing', [], [], [named('A')]],
  ['a rule without members allows all', [{}], [named('A'), named('B', 'k', 'n')], []],
  ['a topic', [{ topics: { A: ['*'] } }], [named('A', 'k', 'n')], [named('B'), named('a')]],
  [
    'a key',
    [{ topics: { A: ['k'] } }],
    [named('A', 'k'), named('A', 'x', '', ['k'])],
    [named('A', 'x'), named('B', 'k')],
  ],
  ['a key of any topic', [{ topics: { '*': ['k'] } }], [named('A', 'k'), named('B', 'k')], [named('A', 'x')]],
  ['a topic without keys allows nothing', [{ topics: { A: [] } }], [], [named('A')]],
  ['a namespace', [{ namespaces: ['n'] }], [named('A', '', 'n')], [named('A', '', 'm'), named('A')]],
  ['events without a namespace', [{ namespaces: ['', 'n'] }], [named('A'), named('A', '', 'n')], [named('A', '', 'm')]],
  [
    'deny beats allow, in any order',
    [{ effect: 'deny', topics: { A: ['k'] } }, {}],
    [named('A', 'x')],
    [named('A', 'k')],
  ],
  [
    'deny finds an event by its filter keys, too',
    [{}, { effect: 'deny', topics: { '*': ['secret'] } }],
    [named('A', 'x', '', ['y'])],
    [named('A', 'x', '', ['secret'])],
  ],
  ['deny alone allows nothing', [{ effect: 'deny', topics: { A: ['*'] } }], [], [named('A'), named('B')]],
  ['separators are letters like others', [{ topics: { 'A:b': ['c'] } }], [named('A:b', 'c')], [named('A', 'b:c')]],
] as readonly [string, Rights['read'], ReturnType<typeof named>[], ReturnType<typeof named>[]][]) {
  test(`rights to read: ${what}`, () => {
    const permit = new Permit('read', rules)
    for (const event of allowed) assert.ok(permit.mayRead(event), JSON.stringify(event))
    for (const event of denied) assert.ok(!permit.mayRead(event), JSON.stringify(event))
  })
}

test('an event may be published if its key and each of its filter keys may be', () => {
  const permit = new Permit('publish', [{ topics: { A: ['k', 'j'] } }, { effect: 'deny', topics: { A: ['j'] } }])
  assert.ok(permit.mayPublish(named('A', 'k')))
  assert.ok(permit.mayPublish(named('A', 'k', 'n', ['k'])))
  assert.ok(!permit.mayPublish(named('A', 'x', '', ['k'])), 'under a key of others')
  assert.ok(!permit.mayPublish(named('A', 'k', '', ['x'])), 'to readers of other keys')
  assert.ok(!permit.mayPublish(named('A', 'k', '', ['j'])), 'denied')
})

test('a rule with a mistake is refused by name', () => {
  for (const [rules, message] of [
    ['none', /^read must be "all" or an array of rules, got "none"/],
    [undefined, /^read must be/],
    [[7], /^read\[0\] must be an object/],
    [[[]], /^read\[0\] must be an object/],
    [[{ topics: null }], /^read\[0\]\.topics must be an object/],
    [[{ topics: '' }], /^read\[0\]\.topics must be an object/],
    [[{ namespaces: null }], /^read\[0\]\.namespaces must be an array/],
    [[{}, { topic: 'A' }], /^read\[1\] must have no members beside effect, topics and namespaces, got "topic"/],
    [[{ effect: 'maybe' }], /^read\[0\]\.effect must be "allow" or "deny"/],
    [[{ topics: { A: 'k' } }], /^read\[0\]\.topics\["A"\] must be an array of strings/],
    [[{ topics: ['A'] }], /^read\[0\]\.topics must be an object/],
    [[{ namespaces: 'n' }], /^read\[0\]\.namespaces must be an array of strings/],
  ] as const) {
    assert.throws(() => new Permit('read', rules as never), withCode('INVALID', message))
  }
})

test('permits with the same key decide alike, whatever the names are made of', () => {
  const random = seededRandom('permit keys')
  const pieces = ['_', ':', ',', '\0', '%3A', '"', '[', ']', 'a', '*']
  const name = () => Array.from({ length: random.below(3) }, () => pieces[random.below(pieces.length)]).join('')
  const rule = (): Rule => ({
    ...(random.below(2) === 0 && { effect: 'deny' }),
    ...(random.below(2) === 0 && { topics: { [name()]: [name(), name()] } }),
    ...(random.below(2) === 0 && { namespaces: [name()] }),
  })
  const seen = new Map<string, Permit>()
  for (let n = 0; n < 1_000_000; n++) {
    // So many at once are enough to meet again.
    if (n % 50_000 === 0) seen.clear()
    const permit = new Permit('read', Array.from({ length: random.below(3) }, rule))
    const other = seen.get(permit.key)
    seen.set(permit.key, permit)
    const event = named(name(), name(), name(), [name()])
    if (other) assert.equal(permit.mayRead(event), other.mayRead(event), `${permit.key} ${JSON.stringify(event)}`)
  }
})

/** A broker whose subjects may read the topics that `allowed` says at the moment. */
function setup(allowed: Record<string, readonly string[] | undefined>) {
  const broker = createBroker({
    rightsEvents: nomadRightsEvents,
    authorize: ({ token }) => {
      const topics = allowed[token]
      if (!topics) throw new SpillwayError('FORBIDDEN', 'no rights')
      return { read: topics.map((topic) => ({ topics: { [topic]: ['*'] } })), publish: [], subject: `the ${token}` }
    },
  })
  const publish = (topic: string, key = '', type = 't') => broker.publish({ topic, key, type })
  return { broker, publish }
}

/** All that is there, as `index:topics`. */
function taken(subscription: Subscription): string[] {
  const found: string[] = []
  for (let batch: Batch | undefined; ; ) {
    batch = subscription.take()
    if (!batch) return found
    found.push(`${batch.index}:${batch.events.map(({ topic }) => topic)}`)
  }
}

test('a reader gets the events that it may read, and passes over the others', async () => {
  const { broker, publish } = setup({ a: ['A'], ab: ['A', 'B'] })
  const readers = ['a', 'ab'].map((token) => broker.subscribe({ token }))
  const late = async (token: string) => {
    const subscription = broker.subscribe({ token, from: 'earliest' })
    await subscription.ready
    return taken(subscription)
  }
  await turn()
  await publish('A')
  await broker.publish(['A', 'B', 'C'].map((topic) => ({ topic, type: 't' })))
  await publish('C')
  await turn()
  assert.deepEqual(readers.map(taken), [
    ['1:A', '2:A'],
    ['1:A', '2:A,B'],
  ])
  assert.deepEqual(await Promise.all(['a', 'ab'].map(late)), [
    ['1:A', '2:A'],
    ['1:A', '2:A,B'],
  ])
  assert.ok(
    readers.every(({ cursor }) => cursor.endsWith(':3')),
    'what was passed over counts',
  )
})

test('who may read nothing of a topic that it asks for is refused', async () => {
  const { broker } = setup({ a: ['A'], none: [] })
  for (const [token, topics, message] of [
    ['a', { B: ['*'] }, /anything of topic "B"/],
    ['a', { A: ['*'], B: ['k'] }, /anything of topic "B"/],
    ['none', { '*': ['*'] }, /read anything\./],
  ] as const) {
    await assert.rejects(
      broker.subscribe({ token, topics: topics as TopicFilter }).ready,
      withCode('FORBIDDEN', message),
    )
  }
  await broker.subscribe({ token: 'a', topics: { A: ['k'] } }).ready
  await broker.subscribe({ token: 'a' }).ready
})

test('rights that are narrowed count from the next event on, and those that are widened without a new subscription', async () => {
  const allowed: Record<string, readonly string[]> = { a: ['A', 'B'] }
  const { broker, publish } = setup(allowed)
  const subscription = broker.subscribe({ token: 'a' })
  await subscription.ready
  await publish('B')
  assert.deepEqual(taken(subscription), ['1:B'])
  allowed.a = ['A']
  broker.recheck('the a')
  await publish('B')
  await publish('A')
  await turn()
  assert.deepEqual(taken(subscription), ['3:A'])
  allowed.a = ['A', 'C']
  broker.recheck('the a')
  await publish('C')
  await turn()
  assert.deepEqual(taken(subscription), ['4:C'])
  allowed.a = []
  broker.recheck()
  await publish('A')
  await turn()
  assert.throws(() => subscription.take(), withCode('REVOKED', /withdrawn/))
})

test('a filter function is shown nothing that may not be read', async () => {
  const { broker, publish } = setup({ a: ['A'] })
  const shown: string[] = []
  const filter = ({ topic }: { topic: string }) => shown.push(topic) > 0
  const subscription = broker.subscribe({ token: 'a', filter })
  await subscription.ready
  for (const topic of ['A', 'B', 'A']) await publish(topic)
  assert.deepEqual(taken(subscription), ['1:A', '3:A'])
  assert.deepEqual(shown, ['A', 'A'])
})

test('revoking a subject ends its subscriptions, also those whose subject is not known yet', async () => {
  const answers: ReturnType<typeof deferred<Rights>>[] = []
  let isRevoked = false
  const broker = createBroker({
    authorize: ({ token }) => {
      if (isRevoked && token !== 'other') throw new SpillwayError('FORBIDDEN', 'no rights')
      if (token !== 'slow') return { ...everything, subject: token === 'other' ? 'bob' : 'ann' }
      const answer = deferred<Rights>()
      answers.push(answer)
      return answer.promise
    },
  })
  const [known, other, slow] = ['known', 'other', 'slow'].map((token) => broker.subscribe({ token }))
  await turn()
  isRevoked = true
  broker.revoke('ann')
  assert.ok(known?.closed)
  answers[0]?.resolve({ ...everything, subject: 'ann' })
  await assert.rejects(async () => slow?.ready, withCode('FORBIDDEN', /no rights/))
  await other?.ready
  broker.revoke('known')
  assert.ok(!other?.closed, 'a token is no subject where there is another')
})

test('an event about rights counts for itself and all that comes after it, in order with the data', async () => {
  const allowed: Record<string, readonly string[] | undefined> = { a: ['A', 'ACLToken'], b: ['A', 'ACLToken'] }
  const { broker, publish } = setup(allowed)
  const [a, b] = ['a', 'b'].map((token) => broker.subscribe({ token })) as [Subscription, Subscription]
  await turn()
  const published = [publish('A'), publish('ACLToken', 'the a', 'ACLTokenDeleted'), publish('A')]
  await Promise.all(published)
  assert.throws(() => taken(a), withCode('REVOKED', /revoked/))
  assert.deepEqual(taken(b), ['1:A', '2:ACLToken', '3:A'])
  allowed.b = ['B']
  await publish('ACLToken', 'the b', 'ACLTokenUpserted')
  await publish('A')
  assert.deepEqual(taken(b), [], 'nothing, until it is known what may be read')
  await turn()
  assert.deepEqual(taken(b), [])
  allowed.b = ['A']
  await publish('ACLPolicy', 'any', 'ACLPolicyDeleted')
  await publish('A')
  await turn()
  assert.deepEqual(taken(b), ['7:A'])
})

test('rights events that make no sense are refused', () => {
  for (const rightsEvents of [{}, { subjects: 7, everybody: [] }, { subjects: 'T', everybody: 'P' }]) {
    assert.throws(() => createBroker({ rightsEvents: rightsEvents as never }), /rightsEvents\./)
  }
})

test('rights that allow all are the same however they are written', () => {
  for (const rules of [[{}], [{ topics: { '*': ['*'] } }, { topics: { A: ['k'] } }], [{ namespaces: ['*'] }]]) {
    const permit = new Permit('read', rules)
    assert.deepEqual([permit.isEverything, permit.key], [true, Permit.everything.key])
  }
  for (const rules of [
    [],
    [{ topics: { '*': ['k'] } }],
    [{ namespaces: ['', 'n'] }],
    [{}, { effect: 'deny', topics: {} }],
  ]) {
    assert.equal(new Permit('read', rules as readonly Rule[]).isEverything, false)
  }
})

test('who cannot be checked at the moment is asked to come back', async () => {
  let canTell = true
  const broker = createBroker({
    authorize: () => {
      if (!canTell) throw new SpillwayError('UNREACHABLE', 'the keys are missing')
      return everything
    },
  })
  const subscription = broker.subscribe()
  await subscription.ready
  canTell = false
  broker.recheck()
  await assert.rejects(subscription.next(), withCode('UNREACHABLE', /the keys are missing/))
})

test('whoever a pending check turns out to be, a revocation meanwhile counts', async () => {
  const answers: ReturnType<typeof deferred<Rights>>[] = []
  const broker = createBroker({
    authorize: () => {
      const answer = deferred<Rights>()
      answers.push(answer)
      return answer.promise
    },
  })
  const subscription = broker.subscribe()
  answers[0]?.resolve({ ...everything, subject: 'A' })
  await subscription.ready
  broker.recheck()
  broker.revoke('B')
  answers[1]?.resolve({ ...everything, subject: 'B' })
  await turn()
  assert.equal(answers.length, 3, 'it is asked for again')
  await broker.publish({ topic: 'T', type: 't' })
  assert.equal(subscription.take(), undefined)
  answers[2]?.reject(new SpillwayError('FORBIDDEN', 'revoked'))
  await assert.rejects(subscription.next(), withCode('REVOKED'))
})

test('changes of others hold up nobody, however often they come', async () => {
  let asked = 0
  const broker = createBroker({
    authorize: async () => {
      asked++
      for (let n = 0; n < 10; n++) broker.recheck('other')
      await turn()
      return { ...everything, subject: 'ann' }
    },
  })
  await broker.subscribe().ready
  assert.equal(asked, 1)
})

test('changes that are too many to be remembered count for everybody', () => {
  const changes = new RightsChanges()
  changes.note('a')
  const { version } = changes
  assert.equal(changes.since(version, 'a'), false)
  for (let n = 0; n < 1000; n++) changes.note('b')
  assert.deepEqual([changes.since(version, 'a'), changes.since(version, 'b')], [false, true])
  changes.note('b')
  assert.equal(changes.since(version, 'a'), true)
  changes.note(undefined)
  assert.equal(changes.since(changes.version - 1, 'a'), true)
})
