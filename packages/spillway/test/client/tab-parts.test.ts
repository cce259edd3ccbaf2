import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { createClient } from '../../src/client/index.ts'
import { type Call, channelOf, type Locks, type Told, unitsOf, windowUnits } from '../../src/client/tab-channel.ts'
import { TabLeader } from '../../src/client/tab-leader.ts'
import { TabQueue } from '../../src/client/tab-queue.ts'
import { type TabRoute, TabSubscription } from '../../src/client/tab-subscription.ts'
import type { Batch, Gap } from '../../src/core/event.ts'
import { ManualClock } from '../support/clock.ts'
import { publishIndexes, type Site, serve, until } from '../support/http.ts'
import { turn } from '../support/waiting.ts'

const { locks } = (globalThis.navigator ?? {}) as unknown as { locks?: Locks }
const skip = !locks && 'this Node has no Web Locks'

let shares = 0
const shareOf = () => `test ${process.pid} ${shares++}`

const batch = (cursor: string, gap?: Partial<Gap>) =>
  JSON.stringify({ index: Number(cursor.split(':')[1]), cursor, events: [], ...(gap && { gap }) })

function queueOf(start: string, texts: string[], end: string): TabQueue {
  const queue = new TabQueue(start)
  queue.push(texts, end)
  return queue
}

const left = (queue: TabQueue) => {
  const cursors: string[] = []
  for (let item = queue.shift(); item; item = queue.shift()) cursors.push(item.batch.cursor)
  return cursors
}

test('a reader meets a queue where nothing is missing or told twice', () => {
  const texts = [batch('a:5'), batch('a:7'), batch('a:9')]
  const sizes = texts.map(unitsOf)
  for (const [at, passed, rest] of [
    ['a:2', undefined, []],
    ['a:3', 0, ['a:5', 'a:7', 'a:9']],
    ['a:6', 1, ['a:7', 'a:9']],
    ['a:9', 3, []],
    ['a:12', 3, []],
    ['a:13', undefined, []],
    ['b:6', undefined, []],
  ] as const) {
    const queue = queueOf('a:3', texts, 'a:12')
    const units = queue.meet(at)
    assert.equal(units, passed === undefined ? undefined : sizes.slice(0, passed).reduce((a, b) => a + b, 0), at)
    if (units !== undefined) assert.deepEqual(left(queue), rest, at)
  }
})

test('a reader meets a queue on its own side of the end of a history', () => {
  const ofTwo = () => queueOf('a:3', [batch('a:5'), batch('b:0', { reason: 'epoch' }), batch('b:4')], 'b:4')
  for (const [at, rest] of [
    ['a:4', ['a:5', 'b:0', 'b:4']],
    ['a:5', ['b:0', 'b:4']],
    ['b:2', ['b:4']],
  ] as const) {
    const queue = ofTwo()
    assert.ok(queue.meet(at) !== undefined, at)
    assert.deepEqual(left(queue), rest, at)
  }
  // Batches of the old history may lie between.
  assert.equal(ofTwo().meet('a:6'), undefined)
})

test('a reader that has not been told that a history was cut does not meet it behind the cut', () => {
  const cut = () => queueOf('a:8', [batch('a:10'), batch('a:5', { reason: 'truncated' }), batch('a:6')], 'a:7')
  for (const [at, rest] of [
    ['a:9', ['a:10', 'a:5', 'a:6']],
    ['a:10', ['a:5', 'a:6']],
    ['a:5', ['a:6']],
    ['a:7', []],
  ] as const) {
    const queue = cut()
    assert.ok(queue.meet(at) !== undefined, at)
    assert.deepEqual(left(queue), rest, at)
  }
  assert.equal(cut().meet('a:11'), undefined)
})

/** A site, and subscriptions to it that share under one name. */
async function setup(t: TestContext) {
  const site = await serve(t, { brokerOptions: { capacity: 10_000 }, handler: { retry: 20, heartbeat: 200 } })
  const client = createClient({ url: site.url, heartbeat: 4000, firstWait: 20 })
  const share = shareOf()
  const clock = new ManualClock()
  const open: TabRoute['open'] = (cursor, onStatus) => client.subscribe({ from: cursor ?? 'latest', onStatus })
  const join = () => {
    const tab = new TabSubscription(
      {
        share: Promise.resolve(share),
        locks: locks as Locks,
        clock,
        open,
        isLatest: true,
        onLag: 'skip',
        onStatus: undefined,
      },
      undefined,
      undefined,
    )
    t.after(() => tab.close())
    return tab
  }
  return { site, share, clock, open, join }
}

test('a tab that stands still is sent no more than a window, and is told that it lost its place', {
  skip,
}, async (t) => {
  const { site, share, open } = await setup(t)
  const leader = new TabLeader(
    share,
    (onStatus) => open('latest', onStatus),
    () => 0,
  )
  const own = new BroadcastChannel(channelOf(share, 'me'))
  const calls = new BroadcastChannel(share)
  t.after(() => {
    leader.stop()
    own.close()
    calls.close()
  })
  const told: Told[] = []
  own.onmessage = (event) => told.push((event as unknown as { data: Told }).data)
  calls.onmessage = (event) => {
    if ((event as unknown as { data: Call }).data.kind === 'leader') {
      calls.postMessage({ kind: 'hello', id: 'me', join: 1, units: 0 } satisfies Call)
    }
  }
  leader.run().catch(() => {})
  await until(() => told.some(({ kind }) => kind === 'welcome'), 'it has joined')
  const payload = 'x'.repeat(8192)
  for (let n = 0; n < 512; n++) await site.broker.publish({ topic: 'T', type: 't', payload })
  await until(() => told.at(-1)?.kind === 'lost', 'it lost its place')
  const items = told.flatMap((message) => (message.kind === 'items' ? message.items : []))
  const units = items.map(unitsOf).reduce((a, b) => a + b, 0)
  assert.ok(units > windowUnits && units < windowUnits + 2 ** 17, `${units}`)
  assert.deepEqual(
    items.map((text) => (JSON.parse(text) as Batch).index),
    items.map((_, n) => n + 1),
  )
})

const connections = ({ broker }: Site) => broker.status.subscriptions

test('a tab takes the place of one that holds the lock and says nothing', { skip }, async (t) => {
  const { site, share, clock, join } = await setup(t)
  let isStolen = false
  const silent = () => new Promise<void>(() => {})
  const hold = (locks as Locks).request(share, { signal: new AbortController().signal }, silent).catch(() => {
    isStolen = true
  })
  const tab = join()
  for (let n = 0; n < 3; n++) {
    await turn()
    clock.advance(13_000)
  }
  assert.equal(connections(site), 0)
  for (let n = 0; n < 2; n++) {
    await turn()
    clock.advance(13_000)
  }
  await tab.ready
  await hold
  assert.ok(isStolen)
  await publishIndexes(site.broker, 1, 1)
  assert.equal((await tab.next()).index, 1)
  assert.equal(connections(site), 1)
})

test('a tab that hears from the one that leads leaves it its place, and moves on with it', { skip }, async (t) => {
  const { site, clock, join } = await setup(t)
  const leads = join()
  await leads.ready
  const follows = join()
  await follows.ready
  for (let n = 0; n < 20; n++) {
    const told = new Promise((resolve) => setImmediate(resolve))
    clock.advance(13_000)
    await told
    await turn()
  }
  await publishIndexes(site.broker, 1, 3)
  for (const tab of [leads, follows]) for (const index of [1, 2, 3]) assert.equal((await tab.next()).index, index)
  assert.equal(site.exchanges.length, 1)
})
