import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type AccessRequest, type BrokerOptions, createBroker, type From } from '../../src/core/broker.ts'
import { SpillwayError } from '../../src/core/errors.ts'
import { memoryLog } from '../../src/core/memory-log.ts'
import { everything, type Rights } from '../../src/core/rights.ts'
import { drain, event, publish, shape, shapes } from '../support/brokers.ts'
import { ManualClock } from '../support/clock.ts'
import { deferred, outcomeOf, turn, withCode } from '../support/waiting.ts'

/** An `authorize` that the test answers, question by question. */
function questions(): {
  asked: { request: AccessRequest; grant: (rights?: Partial<Rights>) => void; refuse: (reason: unknown) => void }[]
  authorize: (request: AccessRequest) => Promise<Rights>
} {
  const asked: ReturnType<typeof questions>['asked'] = []
  return {
    asked,
    authorize: (request) => {
      const { promise, resolve, reject } = deferred<Rights>()
      asked.push({ request, grant: (rights) => resolve({ ...everything, ...rights }), refuse: reject })
      return promise
    },
  }
}

test('16. the size defaults to 100, and a wrong one is refused by name', async () => {
  for (const capacity of [undefined, 0]) {
    const broker = createBroker({ capacity })
    await broker.publishAll(Array.from({ length: 150 }, (_, n) => ({ events: [event(String(n))] })))
    assert.deepEqual([broker.status.oldestIndex, broker.status.newestIndex, broker.status.retained], [50, 150, 101])
  }
  for (const option of ['capacity', 'maxBytes', 'maxAge']) {
    for (const wrong of [-1, 1.5, Number.NaN, '10']) {
      const refusal = withCode('CONFIG', new RegExp(`^${option} `))
      assert.throws(() => createBroker({ [option]: wrong }), refusal, `${option} ${wrong}`)
      assert.throws(() => memoryLog({ [option]: wrong }), refusal, `${option} ${wrong}`)
    }
  }
})

test('17. publishing an empty batch changes nothing', async () => {
  const broker = createBroker()
  await publish(broker, 'a')
  const before = broker.status
  const subscription = broker.subscribe()
  const waiting = subscription.next()
  assert.equal(await broker.publish([]), 1)
  assert.deepEqual(await broker.publishAll([]), [])
  assert.deepEqual(await broker.publishAll([{ events: [] }, { events: [] }]), [])
  assert.equal((await outcomeOf(waiting)).state, 'pending')
  assert.deepEqual(broker.status, { ...before, subscriptions: 1 })
  subscription.close()
  await assert.rejects(waiting, withCode('CLOSED'))
})

test('18. a subscription gets whole batches, and passes silently over those that do not match', async () => {
  const broker = createBroker()
  const subscription = broker.subscribe({ topics: { Job: ['*'] } })
  await broker.publish([event('other', 'Node')])
  await broker.publish([event('a'), event('x', 'Node'), event('b'), event('c')])
  await broker.publish([event('other', 'Node')])
  const batch = await subscription.next()
  assert.equal(batch.index, 2)
  assert.deepEqual(shape(batch), ['a', 'b', 'c'])
  assert.equal(batch.gap, undefined)
  assert.equal((await outcomeOf(subscription.next())).state, 'pending')
})

test('19. order is publish order for every reader, and a slow one delays nobody', async () => {
  const broker = createBroker()
  const slow = broker.subscribe()
  const quick = broker.subscribe()
  const seen: number[] = []
  for (let index = 1; index <= 50; index++) {
    await broker.publish(event(String(index)))
    seen.push((await quick.next()).index)
  }
  const expected = Array.from({ length: 50 }, (_, n) => n + 1)
  assert.deepEqual(seen, expected)
  assert.equal(slow.lag, 50)
  assert.deepEqual(
    (await drain(slow)).map(({ index }) => index),
    expected,
  )
})

test('19. concurrent publishers get growing indexes, and readers see them in that order', async () => {
  const broker = createBroker({ capacity: 1000 })
  const subscription = broker.subscribe()
  const indexes = await Promise.all(Array.from({ length: 100 }, (_, n) => broker.publish(event(String(n)))))
  assert.deepEqual(
    indexes,
    Array.from({ length: 100 }, (_, n) => n + 1),
  )
  assert.deepEqual(
    (await drain(subscription)).map(({ index }) => index),
    indexes,
  )
})

test('20. an exact start is accepted where the index is in the buffer, and refused before authentication', async () => {
  const { asked, authorize } = questions()
  const broker = createBroker({ authorize })
  for (const index of [10, 20, 30]) await broker.publish(event(String(index)), { index })
  for (const at of [5, 15, 31]) {
    assert.throws(
      () => broker.subscribe({ from: { at, exact: true } }),
      withCode('NOT_KEPT', /requested index not in buffer: (5|15|31)/i),
    )
  }
  assert.equal(asked.length, 0)
  assert.equal(broker.status.subscriptions, 0)
  const subscription = broker.subscribe({ from: { at: 10, exact: true } })
  asked[0]?.grant()
  assert.deepEqual(await shapes(subscription), [['10'], ['20'], ['30']])
})

test('20. an exact start in an empty buffer is refused', () => {
  const broker = createBroker()
  assert.throws(() => broker.subscribe({ from: { at: 1, exact: true } }), withCode('NOT_KEPT', /none/))
})

test('20. index 0 asks for all that is kept, also when it is exact, as in the original', async () => {
  const broker = createBroker()
  const early = broker.subscribe({ from: { at: 0, exact: true } })
  await publish(broker, 'a', 'b')
  assert.deepEqual(await shapes(early), [['a'], ['b']])
  assert.deepEqual(await shapes(broker.subscribe({ from: { at: 0, exact: true } })), [['a'], ['b']])
})

test('21. of two subscriptions with empty tokens one ends alone, twice if need be', async () => {
  const broker = createBroker()
  const first = broker.subscribe()
  const second = broker.subscribe()
  first.close()
  first.close()
  assert.deepEqual([first.closed, second.closed, broker.status.subscriptions], [true, false, 1])
  await assert.rejects(first.next(), withCode('CLOSED'))
  assert.throws(() => first.take(), withCode('CLOSED'))
  await publish(broker, 'a')
  assert.deepEqual(shape(await second.next()), ['a'])
})

test('21. the same options may be used twice', async () => {
  const broker = createBroker()
  const options = { topics: { Job: ['a'] }, namespaces: ['prod'] } as const
  const subscriptions = [broker.subscribe(options), broker.subscribe(options)]
  await publish(broker, 'b', 'a')
  for (const subscription of subscriptions) assert.deepEqual(shape(await subscription.next()), ['a'])
  assert.deepEqual(options, { topics: { Job: ['a'] }, namespaces: ['prod'] })
})

test('22. shutdown empties the registry at once and ends every waiting reader', async () => {
  const broker = createBroker()
  const subscriptions = [broker.subscribe(), broker.subscribe({ topics: { Node: ['*'] } }), broker.subscribe()]
  const waiting = subscriptions.map((subscription) => subscription.next())
  const closed = broker.close()
  assert.equal(broker.status.subscriptions, 0)
  for (const promise of waiting) {
    await assert.rejects(promise, withCode('SHUTDOWN', /^Subscription closed by server, client should resubscribe/))
  }
  await closed
  await broker.close()
  assert.throws(() => broker.subscribe(), withCode('SHUTDOWN'))
})

test('23. a refusal by authorize reaches ready and next, and nothing stays registered', async () => {
  const refusal = new SpillwayError('FORBIDDEN', 'Not for you.')
  const refuse = (): never => {
    throw refusal
  }
  for (const authorize of [refuse, async () => refuse()]) {
    const broker = createBroker({ authorize })
    const subscription = broker.subscribe()
    const isRefusal = (error: unknown): boolean => error === refusal
    const waiting = assert.rejects(subscription.next(), isRefusal)
    await assert.rejects(subscription.ready, isRefusal)
    await waiting
    await assert.rejects(subscription.next(), isRefusal)
    assert.deepEqual([subscription.closed, broker.status.subscriptions], [true, 0])
  }
})

test('23. a refusal that nobody waits for is no unhandled rejection', async () => {
  const broker = createBroker({
    authorize: () => {
      throw new Error('no')
    },
  })
  broker.subscribe()
  await turn()
})

test('25. a deleted token closes its subscriptions, whatever authorize says', async () => {
  const broker = createBroker({ authorize: () => everything })
  const revoked = [broker.subscribe({ token: 'a' }), broker.subscribe({ token: 'a', from: 'earliest' })]
  const other = broker.subscribe({ token: 'b' })
  const waiting = revoked.map((subscription) => subscription.next())
  broker.revoke('a')
  for (const promise of waiting) await assert.rejects(promise, withCode('REVOKED'))
  assert.deepEqual([other.closed, broker.status.subscriptions], [false, 1])
})

test('25. a deleted token closes its subscriptions also while they are being authenticated', async () => {
  const { asked, authorize } = questions()
  const broker = createBroker({ authorize })
  const subscription = broker.subscribe({ token: 'a', from: 'earliest' })
  broker.revoke('a')
  asked[0]?.grant()
  await publish(broker, 'secret')
  await assert.rejects(subscription.next(), withCode('REVOKED'))
})

for (const [what, token] of [
  ['an updated token is', 'a'],
  ['an updated policy or role is', undefined],
] as const) {
  test(`25. ${what} asked for again, and who fails is closed`, async () => {
    const allowed = new Set(['a', 'b', 'c'])
    const asked: string[] = []
    const broker = createBroker({
      authorize: (request) => {
        asked.push(request.token)
        if (!allowed.has(request.token)) throw new Error('no more')
        return everything
      },
    })
    const subscriptions = new Map(['a', 'b', 'c'].map((name) => [name, broker.subscribe({ token: name })]))
    await turn()
    allowed.delete('a')
    allowed.delete('b')
    asked.length = 0
    broker.recheck(token)
    await turn()
    assert.deepEqual(asked, token ? ['a'] : ['a', 'b', 'c'])
    const closed = [...subscriptions].filter(([, subscription]) => subscription.closed).map(([name]) => name)
    assert.deepEqual(closed, token ? ['a'] : ['a', 'b'])
    await assert.rejects(async () => subscriptions.get('a')?.next(), withCode('REVOKED'))
  })
}

test('25. authorize is told who wants to read what', async () => {
  const { asked, authorize } = questions()
  const broker = createBroker({ authorize })
  broker.subscribe({ token: 'a', topics: { Job: ['web'] }, namespaces: ['prod'] })
  assert.deepEqual(asked[0]?.request, { token: 'a', action: 'read', topics: { Job: ['web'] }, namespaces: ['prod'] })
})

test('25. an expired token ends the stream: nothing is delivered from its last moment on', async () => {
  const clock = new ManualClock()
  const broker = createBroker({ clock, authorize: () => ({ ...everything, expiresAt: clock.wall + 10_000 }) })
  const subscription = broker.subscribe()
  await subscription.ready
  await publish(broker, 'a', 'b')
  assert.deepEqual(shape(await subscription.next()), ['a'])
  clock.wall += 10_000
  const error = await subscription.next().catch((error: unknown) => error)
  assert.ok(withCode('EXPIRED')(error))
  const { cursor } = error as SpillwayError
  assert.deepEqual(await shapes(broker.subscribe({ from: cursor ?? '' })), [['b']])
})

test('better: an idle stream ends within one second of its token’s end', async () => {
  const clock = new ManualClock()
  const broker = createBroker({ clock, authorize: () => ({ ...everything, expiresAt: clock.wall + 10_000 }) })
  const subscription = broker.subscribe()
  const waiting = assert.rejects(subscription.next(), withCode('EXPIRED'))
  await subscription.ready
  clock.advance(9_999)
  assert.equal(subscription.closed, false)
  clock.advance(1_001)
  assert.equal(subscription.closed, true)
  await waiting
  clock.advance(1_000)
  assert.deepEqual([clock.timers, broker.status.subscriptions], [0, 0])
})

test('better: a token that a recheck prolongs lives on, and one that it shortens ends earlier', async () => {
  const clock = new ManualClock()
  let expiresAt: number | undefined = clock.wall + 10_000
  const broker = createBroker({
    clock,
    authorize: () => (expiresAt === undefined ? everything : { ...everything, expiresAt }),
  })
  const subscription = broker.subscribe()
  await subscription.ready
  expiresAt = undefined
  broker.recheck()
  await turn()
  clock.advance(60_000)
  assert.equal(subscription.closed, false)
  expiresAt = clock.wall + 5000
  broker.recheck()
  await turn()
  clock.advance(6_000)
  assert.equal(subscription.closed, true)
  assert.equal(await broker.close(), undefined)
  assert.equal(clock.timers, 0)
})

test('better: a token that has expired already gives nothing', async () => {
  const clock = new ManualClock()
  const broker = createBroker({ clock, authorize: () => ({ ...everything, expiresAt: clock.wall - 1 }) })
  await publish(broker, 'a')
  await assert.rejects(broker.subscribe({ from: 'earliest' }).next(), withCode('EXPIRED'))
})

test('better: an event that matches two requested keys is delivered once', async () => {
  const broker = createBroker()
  const subscription = broker.subscribe({ topics: { Job: ['a', 'b'], '*': ['a', 'b', 'c'] } })
  await broker.publish({ ...event('a'), filterKeys: ['b', 'a', 'c'] })
  const batch = await subscription.next()
  assert.deepEqual(shape(batch), ['a'])
  assert.deepEqual(await shapes(subscription), [])
})

test('better: a resume from a cursor or an index goes on after it, without repeating', async () => {
  const broker = createBroker()
  for (const index of [10, 20, 30]) await broker.publish(event(String(index)), { index })
  const reader = broker.subscribe({ from: 'earliest' })
  const { cursor } = await reader.next()
  assert.equal(cursor, `${broker.status.epoch}:10`)
  const starts: [From, string[]][] = [
    [cursor, ['20', '30']],
    [10, ['20', '30']],
    [15, ['20', '30']],
    [0, ['10', '20', '30']],
    [30, []],
    ['earliest', ['10', '20', '30']],
    ['latest', []],
    [{ at: 0 }, ['10', '20', '30']],
    [{ at: 10 }, ['10', '20', '30']],
    [{ at: 11 }, ['20', '30']],
    [{ at: 30 }, ['30']],
    [{ at: 31 }, ['30']],
    [{ at: 30, exact: true }, ['30']],
  ]
  for (const [from, expected] of starts) {
    const subscription = broker.subscribe({ from })
    assert.deepEqual((await shapes(subscription)).flat(), expected, JSON.stringify(from))
  }
})

test('better: a reader that has seen no event can resume', async () => {
  const broker = createBroker()
  await publish(broker, 'a')
  const { cursor } = broker.subscribe()
  assert.equal(cursor, `${broker.status.epoch}:1`)
  await publish(broker, 'b')
  assert.deepEqual(await shapes(broker.subscribe({ from: cursor })), [['b']])
  assert.equal(createBroker().subscribe().cursor.split(':')[1], '0')
})

test('better: a resume point that is no longer kept is told as a gap', async () => {
  const broker = createBroker({ capacity: 2 })
  await publish(broker, 'a', 'b', 'c', 'd', 'e')
  const gap = { after: 1, before: 3, reason: 'retention' } as const
  for (const from of [1, `${broker.status.epoch}:1`, { at: 2 }]) {
    const subscription = broker.subscribe({ from, onLag: 'skip' })
    const told = await subscription.next()
    assert.deepEqual([told.gap, told.events], [gap, []])
    assert.deepEqual(await shapes(broker.subscribe({ from: told.cursor })), [['c'], ['d'], ['e']])
    assert.deepEqual(await shapes(subscription), [['c'], ['d'], ['e']])
    const error = await broker
      .subscribe({ from })
      .next()
      .catch((error: unknown) => error)
    assert.ok(withCode('LAGGED', /after index 1 and before 3/)(error))
    assert.deepEqual((error as SpillwayError).gap, gap)
    assert.deepEqual(await shapes(broker.subscribe({ from: (error as SpillwayError).cursor ?? '' })), [
      ['c'],
      ['d'],
      ['e'],
    ])
  }
  assert.deepEqual(await shapes(broker.subscribe({ from: 2 })), [['c'], ['d'], ['e']], 'nothing was lost')
})

test('better: a cursor of another history is told as a gap, and the new history starts at its oldest', async () => {
  const broker = createBroker({ capacity: 2 })
  await publish(broker, 'a', 'b', 'c', 'd')
  const subscription = broker.subscribe({ from: 'another-epoch:900', onLag: 'skip' })
  assert.deepEqual((await drain(subscription)).map(shape), [
    { after: 900, before: 2, reason: 'epoch' },
    ['b'],
    ['c'],
    ['d'],
  ])
  await assert.rejects(broker.subscribe({ from: 'another-epoch:2' }).next(), withCode('LAGGED', /epoch/))
})

test('better: a cursor of another history is told as a gap also where nothing was published yet', async () => {
  const broker = createBroker()
  const subscription = broker.subscribe({ from: 'another-epoch:900', onLag: 'skip' })
  const told = await subscription.next()
  assert.deepEqual(told.gap, { after: 900, before: 1, reason: 'epoch' })
  assert.equal(told.cursor, `${broker.status.epoch}:0`)
  await publish(broker, 'a')
  assert.deepEqual(shape(await subscription.next()), ['a'])
})

test('better: a resume point beyond the newest index is told as a gap', async () => {
  const broker = createBroker()
  await publish(broker, 'a')
  const subscription = broker.subscribe({ from: 9, onLag: 'skip' })
  assert.deepEqual((await subscription.next()).gap, { after: 9, before: 2, reason: 'truncated' })
  await publish(broker, 'b')
  assert.deepEqual(shape(await subscription.next()), ['b'])
})

test('better: equal and falling indexes are refused, and nothing is stored', async () => {
  const broker = createBroker()
  const subscription = broker.subscribe()
  await broker.publish(event('a'), { index: 10 })
  for (const index of [10, 9, 1]) {
    await assert.rejects(broker.publish(event('b'), { index }), withCode('INDEX_ORDER', /not above .* last index 10/))
  }
  for (const index of [0, -1, 1.5, 2 ** 53]) {
    await assert.rejects(broker.publish(event('b'), { index }), withCode('INVALID', /^index /))
  }
  const falling = [
    { events: [event('b')], index: 12 },
    { events: [event('c')], index: 12 },
  ]
  await assert.rejects(broker.publishAll(falling), withCode('INDEX_ORDER'))
  assert.equal(broker.status.newestIndex, 10)
  assert.equal(await broker.publish(event('d')), 11)
  assert.deepEqual(await shapes(subscription), [['a'], ['d']])
})

test('better: nothing is stored of batches of which one is invalid', async () => {
  const broker = createBroker()
  const batches = [{ events: [event('a')] }, { events: [event('b'), event('c\n')] }]
  await assert.rejects(broker.publishAll(batches), withCode('INVALID', /^batches\[1\]: events\[1\]\.key /))
  assert.deepEqual([broker.status.newestIndex, broker.status.retained], [0, 0])
})

test('an index may be as large as 2^53-1, and after it nothing can be published', async () => {
  const broker = createBroker()
  assert.equal(await broker.publish(event('a'), { index: Number.MAX_SAFE_INTEGER }), Number.MAX_SAFE_INTEGER)
  await assert.rejects(broker.publish(event('b')), withCode('INDEX_ORDER', /full/))
  const subscription = broker.subscribe({ from: 'earliest' })
  const { cursor } = await subscription.next()
  assert.deepEqual(await shapes(broker.subscribe({ from: cursor })), [])
})

test('better: a slow authorize delays nobody but its own reader', async () => {
  const { asked, authorize } = questions()
  const broker = createBroker({ authorize })
  const slow = broker.subscribe({ token: 'slow' })
  const quick = broker.subscribe({ token: 'quick' })
  asked[1]?.grant()
  await quick.ready
  const waiting = slow.next()
  await publish(broker, 'a', 'b')
  assert.deepEqual(await shapes(quick), [['a'], ['b']])
  assert.equal(slow.take(), undefined)
  assert.equal((await outcomeOf(waiting)).state, 'pending')
  assert.equal((await outcomeOf(slow.ready)).state, 'pending')
  asked[0]?.grant()
  assert.deepEqual(shape(await waiting), ['a'], 'nothing published since subscribe is missing')
  assert.deepEqual(shape(await slow.next()), ['b'])
  await slow.ready
})

test('better: nothing published after a recheck reaches a reader that it refuses, and its cursor resumes', async () => {
  const { asked, authorize } = questions()
  const broker = createBroker({ authorize })
  const subscription = broker.subscribe({ token: 'a', topics: { Job: ['*'] } })
  asked[0]?.grant()
  await subscription.ready
  await publish(broker, 'before')
  broker.recheck('a')
  await publish(broker, 'after')
  assert.deepEqual(await shapes(subscription), [['before']], 'what came before the recheck may still be read')
  const waiting = subscription.next()
  await broker.publish(event('other', 'Node'))
  await publish(broker, 'later')
  assert.equal((await outcomeOf(waiting)).state, 'pending')
  asked[1]?.refuse(new Error('no more'))
  const error = await waiting.catch((error: unknown) => error)
  assert.ok(withCode('REVOKED')(error))
  assert.equal(((error as SpillwayError).cause as Error).message, 'no more')
  const resumed = broker.subscribe({ token: 'b', topics: { Job: ['*'] }, from: (error as SpillwayError).cursor ?? '' })
  asked[2]?.grant()
  await resumed.ready
  assert.deepEqual(await shapes(resumed), [['after'], ['later']])
})

test('better: a reader that a recheck confirms gets all that was held back', async () => {
  const { asked, authorize } = questions()
  const broker = createBroker({ authorize })
  const subscription = broker.subscribe()
  asked[0]?.grant()
  await subscription.ready
  const waiting = subscription.next()
  broker.recheck()
  await publish(broker, 'a', 'b')
  assert.equal((await outcomeOf(waiting)).state, 'pending')
  asked[1]?.grant()
  assert.deepEqual(shape(await waiting), ['a'])
  assert.deepEqual(await shapes(subscription), [['b']])
})

test('better: an answer that was asked for before the newest recheck does not count', async () => {
  const { asked, authorize } = questions()
  const broker = createBroker({ authorize })
  const subscription = broker.subscribe()
  broker.recheck()
  asked[0]?.grant()
  await publish(broker, 'a')
  await turn()
  assert.equal(subscription.take(), undefined)
  assert.equal(asked.length, 2)
  asked[1]?.grant()
  await turn()
  assert.deepEqual(await shapes(subscription), [['a']])
  broker.recheck()
  broker.recheck()
  asked[2]?.grant()
  await turn()
  assert.equal(asked.length, 4)
  asked[3]?.refuse(new Error('no'))
  await assert.rejects(subscription.next(), withCode('REVOKED'))
})

test('better: a second recheck lets nothing through that came after the first', async () => {
  const { asked, authorize } = questions()
  const broker = createBroker({ authorize })
  const subscription = broker.subscribe()
  asked[0]?.grant()
  await subscription.ready
  broker.recheck()
  await publish(broker, 'secret')
  broker.recheck()
  await publish(broker, 'secret')
  assert.deepEqual(await shapes(subscription), [])
  asked[1]?.grant()
  await turn()
  assert.deepEqual(await shapes(subscription), [], 'that answer was about an older question')
  asked[2]?.refuse(new Error('no'))
  await assert.rejects(subscription.next(), withCode('REVOKED'))
})

test('better: a recheck lets nothing through to a reader that was never granted access', async () => {
  const { asked, authorize } = questions()
  const broker = createBroker({ authorize })
  await publish(broker, 'secret')
  const subscription = broker.subscribe({ from: 'earliest' })
  broker.recheck()
  assert.deepEqual(await shapes(subscription), [])
  asked[0]?.refuse(new Error('no'))
  await assert.rejects(subscription.next(), /no/)
})

test('a subscription that was closed before access was granted leaves no timer', async () => {
  const clock = new ManualClock()
  const { asked, authorize } = questions()
  const broker = createBroker({ clock, authorize })
  const subscription = broker.subscribe()
  subscription.close()
  asked[0]?.grant({ expiresAt: clock.wall + 10_000 })
  await assert.rejects(subscription.ready, withCode('CLOSED'))
  assert.equal(clock.timers, 0)
})

test('better: a reader whose access is in doubt is told no loss of what came later', async () => {
  for (const onLag of ['fail', 'skip'] as const) {
    const { asked, authorize } = questions()
    const broker = createBroker({ authorize, capacity: 2 })
    const subscription = broker.subscribe({ onLag })
    asked[0]?.grant()
    await subscription.ready
    broker.recheck()
    const waiting = subscription.next()
    await publish(broker, 'a', 'b', 'c', 'd', 'e')
    assert.equal((await outcomeOf(waiting)).state, 'pending')
    assert.equal(subscription.take(), undefined)
    asked[1]?.refuse(new Error('no'))
    await assert.rejects(waiting, withCode('REVOKED'))
    assert.equal(subscription.cursor, `${broker.status.epoch}:0`)
  }
})

test('better: limits in bytes hold, and a batch that is larger is refused', async () => {
  const broker = createBroker({ maxBytes: 100 })
  const sized = (size: number) => ({ topic: 'T', type: 'T', payload: 'x'.repeat(size - 4) })
  for (let n = 0; n < 5; n++) await broker.publish(sized(40))
  assert.deepEqual([broker.status.retained, broker.status.bytes, broker.status.oldestIndex], [2, 80, 4])
  await assert.rejects(broker.publish(sized(101)), withCode('TOO_LARGE', /101 bytes, maxBytes is 100/))
  const batches = [{ events: [sized(40)] }, { events: [sized(60), sized(60)] }]
  await assert.rejects(broker.publishAll(batches), withCode('TOO_LARGE'))
  assert.deepEqual([broker.status.retained, broker.status.newestIndex], [2, 5])
  await broker.publish(sized(100))
  assert.deepEqual([broker.status.retained, broker.status.bytes], [1, 100])
})

test('better: what is older than it may be goes, also while nothing is published', async () => {
  const clock = new ManualClock()
  const broker = createBroker({ clock, maxAge: 10_000 })
  await publish(broker, 'a')
  clock.advance(6_000)
  await publish(broker, 'b')
  clock.advance(6_500)
  assert.deepEqual([broker.status.retained, broker.status.oldestIndex], [1, 2])
  clock.advance(10_000)
  assert.deepEqual([broker.status.retained, broker.status.newestIndex], [0, 2])
  await broker.close()
  assert.equal(clock.timers, 0)
})

test('better: who asks for the earliest is told no loss, also where all has become too old', async () => {
  const clock = new ManualClock()
  const broker = createBroker({ clock, maxAge: 10_000 })
  await publish(broker, 'a', 'b')
  clock.advance(20_000)
  assert.equal(broker.status.floor, 2)
  const subscription = broker.subscribe({ from: 'earliest' })
  assert.deepEqual(await shapes(subscription), [])
  const late = broker.subscribe({ from: 0, onLag: 'skip' })
  assert.deepEqual(await shapes(late), [{ after: 0, before: 3, reason: 'retention' }])
  await publish(broker, 'c')
  assert.deepEqual([await shapes(subscription), await shapes(late)], [[['c']], [['c']]])
})

test('who asks beyond the tail is told no loss, also where all has become too old', async () => {
  const clock = new ManualClock()
  const broker = createBroker({ clock, maxAge: 10_000 })
  await publish(broker, 'a', 'b')
  clock.advance(20_000)
  const subscription = broker.subscribe({ from: { at: 9 } })
  assert.deepEqual(await shapes(subscription), [])
  await publish(broker, 'c')
  assert.deepEqual(await shapes(subscription), [['c']])
})

test('better: publishing after the shutdown rejects at once', async () => {
  const broker = createBroker()
  const closed = broker.close()
  await assert.rejects(broker.publish(event('a')), withCode('SHUTDOWN'))
  await assert.rejects(broker.publishAll([]), withCode('SHUTDOWN'))
  await closed
  await assert.rejects(broker.publish(event('a')), withCode('SHUTDOWN'))
})

test('what is published before anybody subscribes is there for those who ask for the earliest', async () => {
  const broker = createBroker()
  assert.equal(await broker.publish([event('a'), event('b')]), 1)
  assert.deepEqual(
    await broker.publishAll([{ events: [event('c')] }, { events: [], index: 99 }, { events: [event('d')] }]),
    [2, 3],
  )
  assert.deepEqual(await shapes(broker.subscribe({ from: 'earliest' })), [['a', 'b'], ['c'], ['d']])
  assert.deepEqual(await shapes(broker.subscribe()), [])
})

test('wrong options of subscribe are refused by name, and nothing stays registered', () => {
  const broker = createBroker()
  const wrong: [object, RegExp][] = [
    [{ from: -1 }, /^from /],
    [{ from: 1.5 }, /^from /],
    [{ from: Number.NaN }, /^from /],
    [{ from: null }, /^from/],
    [{ from: '' }, /^cursor /],
    [{ from: 'oldest' }, /^cursor /],
    [{ from: {} }, /^from\.at /],
    [{ from: { at: -1 } }, /^from\.at /],
    [{ onLag: 'ignore' }, /^onLag /],
    [{ token: 7 }, /^token /],
    [{ topics: 'Job' }, /^topics /],
    [{ topics: ['Job'] }, /^topics /],
    [{ topics: { Job: 'web' } }, /^topics\["Job"\] /],
    [{ topics: { Job: [7] } }, /^topics\["Job"\] /],
    [{ namespaces: 'prod' }, /^namespaces /],
    [{ filter: 'all' }, /^filter /],
  ]
  for (const [options, message] of wrong) {
    assert.throws(() => broker.subscribe(options), withCode('INVALID', message), JSON.stringify(options))
  }
  assert.equal(broker.status.subscriptions, 0)
})

test('wrong arguments of publish are refused with INVALID', async () => {
  const broker = createBroker()
  const wrongEvents = [undefined, null, 7, 'event', [undefined], new Array(1)] as unknown as never[]
  for (const events of wrongEvents) await assert.rejects(broker.publish(events), withCode('INVALID'), String(events))
  const wrongBatches = [
    undefined,
    null,
    7,
    [undefined],
    [{}],
    [{ events: 'abc' }],
    [{ events: event('a') }],
  ] as unknown as never[]
  for (const batches of wrongBatches) {
    await assert.rejects(broker.publishAll(batches), withCode('INVALID'), JSON.stringify(batches))
  }
  const subscription = broker.subscribe()
  await publish(broker, 'a')
  assert.deepEqual(await shapes(subscription), [['a']], 'the broker goes on')
})

test('the status says what is held', async () => {
  const broker = createBroker({ capacity: 2 })
  const { epoch } = broker.status
  assert.deepEqual(broker.status, {
    ...{
      epoch,
      oldestIndex: undefined,
      newestIndex: 0,
      cursor: `${epoch}:0`,
      floor: 0,
      retained: 0,
      bytes: 0,
      subscriptions: 0,
    },
  })
  await publish(broker, 'a', 'b', 'c', 'd')
  broker.subscribe()
  const bytes = 3 * 'JobChangeda"a"'.length
  assert.deepEqual(broker.status, {
    ...{ epoch, oldestIndex: 2, newestIndex: 4, cursor: `${epoch}:4`, floor: 1, retained: 3, bytes, subscriptions: 1 },
  })
})

test('a broker with an expiring token, an age limit and subscriptions leaves no timer behind', async () => {
  const clock = new ManualClock()
  const options: BrokerOptions = {
    clock,
    maxAge: 60_000,
    authorize: () => ({ ...everything, expiresAt: clock.wall + 60_000 }),
  }
  const broker = createBroker(options)
  await broker.subscribe().ready
  await publish(broker, 'a')
  assert.ok(clock.timers > 0)
  await broker.close()
  assert.equal(clock.timers, 0)
})

test('a subscription that ends while its access is checked is not ready, however long the check takes', async () => {
  const { authorize } = questions()
  const broker = createBroker({ authorize })
  const revoked = broker.subscribe({ token: 'a' })
  const other = broker.subscribe({ token: 'b' })
  broker.revoke('a')
  await assert.rejects(revoked.ready, withCode('REVOKED'))
  await broker.close()
  await assert.rejects(other.ready, withCode('SHUTDOWN'))
})

test('an answer of authorize that is neither yes nor no opens nothing', async () => {
  for (const answer of [
    false,
    true,
    null,
    'yes',
    {},
    { read: 'all' },
    { read: 'all', publish: 'none' },
    { read: [{ topic: 'T' }], publish: [] },
    { ...everything, subject: 7 },
    { ...everything, expiresAt: Number.NaN },
    { ...everything, expiresAt: 'soon' },
    { ...everything, expiresAt: null },
  ]) {
    const broker = createBroker({ authorize: () => answer as never })
    await assert.rejects(broker.subscribe().ready, TypeError, JSON.stringify(answer))
    assert.equal(broker.status.subscriptions, 0)
  }
  assert.throws(() => createBroker({ authorize: 'x' as never }), withCode('CONFIG', /^authorize /))
})

test('what is published from within a filter comes after what is being published, once and in order', async () => {
  const broker = createBroker({ capacity: 2 })
  let extra = 0
  const reader = broker.subscribe({ onLag: 'skip' })
  const nosy = broker.subscribe({
    onLag: 'skip',
    filter: () => {
      if (extra++ < 3) void broker.publish(event(`extra${extra}`))
      return true
    },
  })
  const indexes = await broker.publishAll(['a', 'b', 'c', 'd', 'e'].map((key) => ({ events: [event(key)] })))
  assert.deepEqual(indexes, [1, 2, 3, 4, 5])
  const seen: number[] = []
  for (let round = 0; round < 2; round++) {
    for (const { gap, index } of await drain(reader)) {
      for (let n = gap ? gap.after + 1 : index; n <= index; n++) seen.push(n)
    }
    await drain(nosy)
  }
  assert.deepEqual(
    seen,
    Array.from({ length: broker.status.newestIndex }, (_, n) => n + 1),
  )
})

test('a filter that throws leaves the cursor before the batch that it failed on', async () => {
  const broker = createBroker()
  const subscription = broker.subscribe({
    filter: ({ key }) => {
      if (key === 'b') throw new Error('no')
      return true
    },
  })
  await publish(broker, 'a', 'b')
  await subscription.next()
  await assert.rejects(subscription.next(), /no/)
  assert.deepEqual(await shapes(broker.subscribe({ from: subscription.cursor })), [['b']])
})

test('the newest batches are counted in memory, also where the log keeps fewer', async (t) => {
  const log = memoryLog({ capacity: 4 })
  const broker = createBroker({ log, capacity: 64 })
  t.after(() => broker.close())
  for (let n = 1; n <= 30; n++) await broker.publish({ topic: 'T', type: 't' })
  const fromNow = broker.subscribe({ from: { last: 0 } })
  for (const [last, first] of [
    [1, 30],
    [25, 6],
    [99, 1],
  ] as const) {
    assert.equal((await broker.subscribe({ from: { last } }).next()).index, first)
  }
  await broker.publish({ topic: 'T', type: 't' })
  assert.equal((await fromNow.next()).index, 31)
})
