import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { test } from 'node:test'
import { type Broker, createBroker } from '../../src/core/broker.ts'
import type { SpillwayError } from '../../src/core/errors.ts'
import type { Subscription } from '../../src/core/subscription.ts'
import { drain, event, publish, shape, shapes } from '../support/brokers.ts'
import { outcomeOf, turn, withCode } from '../support/waiting.ts'

const cursorAt = (broker: Broker, index: number): string => `${broker.status.epoch}:${index}`

test('10. closing a subscription ends its wait, and every later read, as closed', async () => {
  const broker = createBroker()
  const subscription = broker.subscribe()
  const waiting = subscription.next()
  subscription.close()
  await assert.rejects(waiting, withCode('CLOSED'))
  await assert.rejects(subscription.next(), withCode('CLOSED'))
  assert.throws(() => subscription.take(), withCode('CLOSED'))
  assert.deepEqual([subscription.closed, broker.status.subscriptions], [true, 0])
})

test('closing drops what is ready, and the cursor resumes before it', async () => {
  const broker = createBroker()
  const subscription = broker.subscribe()
  await publish(broker, 'a', 'b')
  assert.deepEqual(shape(await subscription.next()), ['a'])
  subscription.close()
  const error = await subscription.next().catch((error: unknown) => error)
  assert.equal((error as SpillwayError).cursor, cursorAt(broker, 1))
  assert.equal(subscription.cursor, cursorAt(broker, 1))
  await publish(broker, 'c')
  assert.equal(subscription.cursor, cursorAt(broker, 1), 'a closed subscription stands still')
  assert.deepEqual(await shapes(broker.subscribe({ from: subscription.cursor })), [['b'], ['c']])
})

test('the signal of a subscription ends it with its reason', async () => {
  const broker = createBroker()
  const controller = new AbortController()
  const reason = new Error('enough')
  const isReason = (error: unknown): boolean => error === reason
  const subscription = broker.subscribe({ signal: controller.signal })
  const waiting = subscription.next()
  controller.abort(reason)
  await assert.rejects(waiting, isReason)
  await assert.rejects(subscription.next(), isReason)
  assert.throws(() => subscription.take(), isReason)
  assert.deepEqual([subscription.closed, broker.status.subscriptions], [true, 0])
  assert.throws(() => broker.subscribe({ signal: controller.signal }), isReason)
  assert.equal(broker.status.subscriptions, 0)
})

test('abort wins over a batch that is ready', async () => {
  const broker = createBroker()
  const reason = new Error('enough')
  const isReason = (error: unknown): boolean => error === reason
  const controller = new AbortController()
  const subscription = broker.subscribe({ signal: controller.signal })
  await publish(broker, 'a')
  await assert.rejects(subscription.next({ signal: AbortSignal.abort(reason) }), isReason)
  assert.equal(subscription.closed, false)
  controller.abort(reason)
  await assert.rejects(subscription.next(), isReason)
})

test('the signal of one wait ends that wait only', async () => {
  const broker = createBroker()
  const subscription = broker.subscribe()
  const controller = new AbortController()
  const waiting = subscription.next({ signal: controller.signal })
  controller.abort()
  await assert.rejects(waiting, { name: 'AbortError' })
  await publish(broker, 'a')
  assert.deepEqual(shape(await subscription.next()), ['a'])
})

test('for await gets batch after batch, and leaving it closes the subscription', async () => {
  const broker = createBroker()
  await publish(broker, 'a', 'b')
  const subscription = broker.subscribe({ from: 'earliest' })
  const seen: unknown[] = []
  for await (const batch of subscription) {
    seen.push(shape(batch))
    if (seen.length === 2) setImmediate(() => void publish(broker, 'c', 'd'))
    if (seen.length === 3) break
  }
  assert.deepEqual(seen, [['a'], ['b'], ['c']])
  assert.equal(subscription.closed, true)
  assert.equal(subscription.cursor, cursorAt(broker, 3))
})

test('for await ends quietly when the reader closes, and throws what ended it otherwise', async () => {
  const reason = new Error('enough')
  const ways: [
    (broker: Broker, subscription: Subscription, controller: AbortController) => void,
    ((error: unknown) => boolean) | undefined,
  ][] = [
    [(_, subscription) => subscription.close(), undefined],
    [(broker) => void broker.close(), withCode('SHUTDOWN')],
    [(broker) => broker.revoke('token'), withCode('REVOKED')],
    [(_, __, controller) => controller.abort(reason), (error) => error === reason],
  ]
  for (const [end, rejection] of ways) {
    const broker = createBroker()
    const controller = new AbortController()
    const subscription = broker.subscribe({ token: 'token', signal: controller.signal })
    const reading = (async () => {
      for await (const _ of subscription) assert.fail('nothing was published')
    })()
    await turn()
    end(broker, subscription, controller)
    if (rejection) await assert.rejects(reading, rejection)
    else await reading
    assert.equal(getEventListeners(controller.signal, 'abort').length, 0)
  }
})

test('await using closes the subscription', async () => {
  const broker = createBroker()
  {
    await using subscription = broker.subscribe()
    assert.equal(subscription.closed, false)
    assert.equal(broker.status.subscriptions, 1)
  }
  assert.equal(broker.status.subscriptions, 0)
})

const waysToEnd: Record<string, (broker: Broker, subscription: Subscription, controller: AbortController) => unknown> =
  {
    close: (_, subscription) => subscription.close(),
    abort: (_, __, controller) => controller.abort(),
    revoke: (broker) => broker.revoke('token'),
    shutdown: (broker) => broker.close(),
    'async dispose': (_, subscription) => subscription[Symbol.asyncDispose](),
    'leaving for await': (_, subscription) => subscription[Symbol.asyncIterator]().return?.(),
  }

for (const [way, end] of Object.entries(waysToEnd)) {
  for (const waits of [true, false]) {
    test(`a subscription leaves no listener on signals: ${way} while it ${waits ? 'waits' : 'does not wait'}`, async () => {
      const broker = createBroker()
      const controller = new AbortController()
      const ofWait = new AbortController()
      const subscription = broker.subscribe({ token: 'token', signal: controller.signal })
      const first = subscription.next({ signal: ofWait.signal })
      await publish(broker, 'a')
      await first
      assert.equal(getEventListeners(ofWait.signal, 'abort').length, 0)
      if (waits) subscription.next({ signal: ofWait.signal }).catch(() => {})
      await end(broker, subscription, controller)
      await turn()
      assert.equal(getEventListeners(controller.signal, 'abort').length, 0)
      assert.equal(getEventListeners(ofWait.signal, 'abort').length, 0)
    })
  }
}

test('a subscription that is refused leaves no listener on its signal', async () => {
  const broker = createBroker({
    authorize: () => {
      throw new Error('no')
    },
  })
  const { signal } = new AbortController()
  await assert.rejects(broker.subscribe({ signal }).ready)
  assert.equal(getEventListeners(signal, 'abort').length, 0)
  for (const options of [{ from: -1 }, { topics: 7 as never }, { from: { at: 9, exact: true } }]) {
    assert.throws(() => broker.subscribe({ ...options, signal }))
  }
  assert.equal(getEventListeners(signal, 'abort').length, 0)
})

test('a second next while one waits is refused, and the first goes on', async () => {
  const broker = createBroker()
  const subscription = broker.subscribe()
  const first = subscription.next()
  await assert.rejects(subscription.next(), withCode('INVALID', /one batch at a time/))
  await publish(broker, 'a')
  assert.deepEqual(shape(await first), ['a'])
})

test('the cursor moves on though nothing matches, so that a resume need not read it again', async () => {
  const broker = createBroker({ capacity: 4 })
  const subscription = broker.subscribe({ topics: { Job: ['wanted'] } })
  const waiting = subscription.next()
  for (let n = 1; n <= 20; n++) {
    await publish(broker, 'other')
    assert.deepEqual([subscription.cursor, subscription.lag], [cursorAt(broker, n), 0])
  }
  assert.equal((await outcomeOf(waiting)).state, 'pending')
  await publish(broker, 'wanted')
  assert.deepEqual(shape(await waiting), ['wanted'])
})

test('the cursor stands right before the first batch that matches, while that waits to be taken', async () => {
  const broker = createBroker()
  const subscription = broker.subscribe({ topics: { Job: ['wanted'] } })
  assert.equal(subscription.take(), undefined)
  const events = ['other', 'other', 'wanted', 'other', 'wanted'].map((key) => ({ events: [event(key)] }))
  await broker.publishAll(events)
  await broker.flushed()
  assert.deepEqual([subscription.cursor, subscription.lag], [cursorAt(broker, 2), 3])
  assert.equal(subscription.take()?.index, 3)
})

test('what was published can be taken at once', () => {
  const broker = createBroker()
  const subscription = broker.subscribe()
  assert.equal(subscription.take(), undefined)
  void broker.publish(event('a'))
  assert.deepEqual(shape(subscription.take() ?? assert.fail()), ['a'])
})

test('a narrow reader is told no gap while others flood the buffer with what it does not want', async () => {
  const broker = createBroker({ capacity: 4 })
  const waiting = broker.subscribe({ topics: { Job: ['wanted'] } })
  const polling = broker.subscribe({ topics: { Job: ['wanted'] } })
  const next = waiting.next()
  assert.equal(polling.take(), undefined)
  for (let round = 0; round < 3; round++) {
    await broker.publishAll(Array.from({ length: 100 }, () => ({ events: [event('other')] })))
    assert.equal(polling.take(), undefined)
  }
  await publish(broker, 'wanted')
  assert.deepEqual(shape(await next), ['wanted'])
  assert.deepEqual(shape(polling.take() ?? assert.fail()), ['wanted'])
})

test('a narrow reader is told a gap if a batch that it wanted may be gone, which it does not know', async () => {
  const broker = createBroker({ capacity: 2 })
  const subscription = broker.subscribe({ topics: { Job: ['wanted'] }, onLag: 'skip' })
  assert.equal(subscription.take(), undefined)
  await publish(broker, 'other', 'wanted', 'other', 'other', 'other', 'wanted')
  assert.deepEqual(await shapes(subscription), [{ after: 1, before: 4, reason: 'lag' }, ['wanted']])
})

test('a burst in one publish that is longer than the buffer overruns a reader that waits for it', async () => {
  const broker = createBroker({ capacity: 4 })
  const subscription = broker.subscribe({ onLag: 'skip' })
  const waiting = subscription.next()
  await broker.publishAll(Array.from({ length: 100 }, (_, n) => ({ events: [event(String(n + 1))] })))
  const got = [await waiting, ...(await drain(subscription))]
  const gap = got.find((batch) => batch.gap)?.gap
  assert.ok(gap)
  const indexes = got.filter((batch) => !batch.gap).map(({ index }) => index)
  const expected = Array.from({ length: 100 }, (_, n) => n + 1).filter(
    (index) => index <= gap.after || index >= gap.before,
  )
  assert.deepEqual(indexes, expected)
  assert.equal(gap.before, 96)
})

test('a lag is told at its place: as an error that says where to resume, or in the stream', async () => {
  for (const onLag of ['fail', 'skip'] as const) {
    const broker = createBroker({ capacity: 2 })
    const subscription = broker.subscribe({ onLag })
    await publish(broker, 'a')
    assert.deepEqual(shape(await subscription.next()), ['a'])
    await publish(broker, 'b', 'c', 'd', 'e', 'f')
    const gap = { after: 1, before: 4, reason: 'lag' }
    if (onLag === 'skip') {
      const told = await subscription.next()
      assert.deepEqual([told.gap, told.events, told.index, told.cursor], [gap, [], 3, cursorAt(broker, 3)])
      assert.deepEqual(await shapes(subscription), [['d'], ['e'], ['f']])
      continue
    }
    const error = (await subscription.next().catch((error: unknown) => error)) as SpillwayError
    assert.ok(withCode('LAGGED', /after index 1 and before 4 may be missing \(lag\)/)(error))
    assert.deepEqual([error.gap, error.cursor], [gap, cursorAt(broker, 3)])
    await assert.rejects(subscription.next(), (again) => again === error)
    assert.equal(broker.status.subscriptions, 0)
    assert.deepEqual(await shapes(broker.subscribe({ from: error.cursor ?? '' })), [['d'], ['e'], ['f']])
  }
})

test('lag counts what was published and not passed', async () => {
  const broker = createBroker()
  const subscription = broker.subscribe()
  await publish(broker, 'a', 'b', 'c')
  assert.equal(subscription.lag, 3)
  await subscription.next()
  assert.equal(subscription.lag, 2)
  await drain(subscription)
  assert.equal(subscription.lag, 0)
})

test('readers share the events that they get', async () => {
  const broker = createBroker()
  const [first, second, narrow] = [broker.subscribe(), broker.subscribe(), broker.subscribe({ topics: { Job: ['b'] } })]
  await broker.publish([event('a'), event('b')])
  const batches = [await first.next(), await second.next(), await narrow.next()]
  assert.equal(batches[0], batches[1])
  assert.equal(batches[2]?.events[0], batches[0]?.events[1])
})

test('a long scan for a narrow filter rests, so that others get their turn', async () => {
  const broker = createBroker({ capacity: 20_000 })
  await broker.publishAll(Array.from({ length: 10_000 }, () => ({ events: [event('other')] })))
  await publish(broker, 'wanted')
  const subscription = broker.subscribe({ from: 'earliest', topics: { Job: ['wanted'] } })
  const order: string[] = []
  setImmediate(() => order.push('another'))
  const batch = await subscription.next()
  order.push('the reader')
  assert.deepEqual(shape(batch), ['wanted'])
  assert.deepEqual(order, ['another', 'the reader'])
  assert.equal(batch.index, 10_001)
})

test('a closed subscription lets go of a scan that rests', async () => {
  const broker = createBroker({ capacity: 20_000 })
  await broker.publishAll(Array.from({ length: 10_000 }, () => ({ events: [event('other')] })))
  const subscription = broker.subscribe({ from: 'earliest', topics: { Job: ['wanted'] } })
  const waiting = assert.rejects(subscription.next(), withCode('CLOSED'))
  subscription.close()
  await waiting
  await turn()
})

test('flushed resolves when those who wait were handed all that was published', async () => {
  const broker = createBroker()
  const order: string[] = []
  const waiting = broker
    .subscribe()
    .next()
    .then(() => order.push('reader'))
  await publish(broker, 'a')
  await broker.flushed()
  await waiting
  assert.deepEqual(order, ['reader'])
})
