import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { ClientSubscribeOptions, Status } from '../../src/client/index.ts'
import { createTabsClient, type TabsClientOptions } from '../../src/client/tabs.ts'
import { createBroker } from '../../src/core/broker.ts'
import { SpillwayError } from '../../src/core/errors.ts'
import type { Batch } from '../../src/core/event.ts'
import type { Subscription } from '../../src/core/subscription.ts'
import { publishIndexes, type Site, type SiteOptions, serve, until } from '../support/http.ts'
import { seededRandom } from '../support/random.ts'
import { restartable } from '../support/restarts.ts'
import { withCode } from '../support/waiting.ts'

// Clients of one process are to each other as tabs are: a lock and channels are all that they have in common. Chromium is in
// tabs-browser.test.ts.
// Node 20 has no navigator at all.
const skip = !('locks' in (globalThis.navigator ?? {})) && 'this Node has no Web Locks'

// A silence that is longer than this machine may be busy.
const quick = { heartbeat: 4000, firstWait: 20 }

let name = 0

/** What opens tabs of one user of a site. */
function tabsOf(t: TestContext, { url }: Pick<Site, 'url'>) {
  const user = `${process.pid} ${name++}`
  return (options: ClientSubscribeOptions = {}, more: Partial<TabsClientOptions> = {}) => {
    const subscription = createTabsClient({ url, user, ...quick, ...more }).subscribe(options)
    t.after(() => subscription.close())
    return subscription
  }
}

/** Reads all that comes, and keeps what it was. */
function follow(subscription: Subscription): (number | string)[] {
  const seen: (number | string)[] = []
  void (async () => {
    for await (const batch of subscription) seen.push(shown(batch))
  })().catch((error: { code?: string }) => seen.push(error.code ?? String(error)))
  return seen
}

function shown({ index, gap }: Batch): number | string {
  return gap ? `${gap.after}..${gap.before} ${gap.reason}` : index
}

const range = (from: number, upTo: number) => Array.from({ length: upTo - from + 1 }, (_, n) => from + n)

const settled = ({ broker }: Pick<Site, 'broker'>, count = 1) =>
  until(
    () => broker.status.subscriptions === count,
    () => `${count} connections, there are ${broker.status.subscriptions}`,
  )

const hasSeen = (seen: readonly unknown[], count: number) =>
  until(
    () => seen.length >= count,
    () => `${count} batches, got ${seen.length}: ${seen.slice(-3)}`,
  )

const start = (t: TestContext, options: SiteOptions = {}) =>
  serve(t, { handler: { retry: 20, heartbeat: 200 }, ...options })

test('tabs that want the same share one connection, and each gets every batch once, in order', { skip }, async (t) => {
  const site = await start(t)
  const open = tabsOf(t, site)
  const tabs = [open(), open(), open()]
  await Promise.all(tabs.map(({ ready }) => ready))
  const seen = tabs.map(follow)
  await publishIndexes(site.broker, 1, 500)
  for (const each of seen) await hasSeen(each, 500)
  assert.deepEqual(seen, [range(1, 500), range(1, 500), range(1, 500)])
  assert.equal(site.exchanges.length, 1)
  assert.deepEqual(
    tabs.map(({ cursor, lag }) => [cursor, lag]),
    tabs.map(() => [`${site.broker.status.epoch}:500`, 0]),
  )
})

test('when the tab that holds the connection is closed another goes on, and nothing is lost or told twice', {
  skip,
}, async (t) => {
  const site = await start(t)
  const open = tabsOf(t, site)
  const tabs = [open(), open(), open(), open()]
  await Promise.all(tabs.map(({ ready }) => ready))
  const seen = tabs.map(follow)
  let last = 0
  for (const [n, tab] of tabs.entries()) {
    const rest = seen.slice(n)
    await publishIndexes(site.broker, last + 1, last + 100)
    // Whoever came first leads. It goes while batches are on their way.
    if (n < tabs.length - 1) tab.close()
    await publishIndexes(site.broker, last + 101, last + 200)
    last += 200
    if (n < tabs.length - 1) for (const each of rest.slice(1)) await hasSeen(each, last)
  }
  await hasSeen(seen.at(-1) as number[], last)
  for (const each of seen.slice(1)) assert.deepEqual(each, range(1, each.length))
  assert.deepEqual(seen.at(-1), range(1, last))
  await settled(site)
})

test('a tab that asks for history reads it by itself, and then shares', { skip }, async (t) => {
  const site = await start(t)
  const open = tabsOf(t, site)
  await publishIndexes(site.broker, 1, 300)
  const early = open()
  await early.ready
  const seen = [follow(early)]
  const { epoch } = site.broker.status
  seen.push(follow(open({ from: 'earliest' })), follow(open({ from: `${epoch}:100` })))
  await publishIndexes(site.broker, 301, 320)
  for (const each of seen) await until(() => each.at(-1) === 320, 'the newest')
  await settled(site)
  await publishIndexes(site.broker, 321, 340)
  for (const each of seen) await until(() => each.at(-1) === 340, 'the newest')
  await settled(site)
  assert.deepEqual(seen, [range(301, 340), range(1, 340), range(101, 340)])
})

test('a tab that reads slower than the stream loses its place with the others, and no batch', { skip }, async (t) => {
  const site = await start(t, { brokerOptions: { capacity: 10_000 } })
  const open = tabsOf(t, site)
  const quickTab = open()
  const slow = open()
  await Promise.all([quickTab.ready, slow.ready])
  const seen = follow(quickTab)
  // Eight times as much as may wait for a tab.
  const payload = 'x'.repeat(8192)
  for (let n = 1; n <= 1024; n++) await site.broker.publish({ topic: 'T', type: 't', payload })
  await hasSeen(seen, 1024)
  const late = follow(slow)
  await hasSeen(late, 1024)
  assert.deepEqual(late, range(1, 1024))
  await publishIndexes(site.broker, 1025, 1030)
  await hasSeen(late, 1030)
  assert.deepEqual(late, range(1, 1030))
  await settled(site)
})

test('tabs go on after a restart of the server, and all are told if it lost its history', { skip }, async (t) => {
  const running = await restartable(t)
  const open = tabsOf(t, running.site)
  const tabs = [open(), open()]
  await Promise.all(tabs.map(({ ready }) => ready))
  const seen = tabs.map(follow)
  await publishIndexes(running.broker, 1, 5)
  for (const each of seen) await hasSeen(each, 5)
  await running.down()
  await publishIndexes(running.broker, 6, 8)
  await running.up()
  for (const each of seen) await hasSeen(each, 8)
  await running.down()
  const old = running.broker
  const broker = createBroker()
  await publishIndexes(broker, 1, 2)
  await running.up(broker)
  for (const each of seen) await hasSeen(each, 11)
  assert.deepEqual(
    seen,
    tabs.map(() => [...range(1, 8), '8..1 epoch', 1, 2]),
  )
  await settled(running)
  await old.close()
})

test('a tab of another user, with another token or another wish has a connection of its own', { skip }, async (t) => {
  const site = await start(t)
  const open = tabsOf(t, site)
  const others = [
    open(),
    open({ topics: { T: ['*'] } }),
    open({ namespaces: ['n'] }),
    open({}, { user: `another ${process.pid}` }),
    open({}, { user: undefined, headers: { 'x-token': `${process.pid} a` } }),
    open({}, { user: undefined, headers: () => ({ 'x-token': `${process.pid} b` }) }),
  ]
  await Promise.all(others.map(({ ready }) => ready))
  await settled(site, others.length)
  const again = open({}, { user: undefined, headers: () => ({ 'X-Token': `${process.pid} b` }) })
  await again.ready
  await settled(site, others.length)
})

test('losses are told to every tab, and end those that asked for that', { skip }, async (t) => {
  const site = await start(t, { brokerOptions: { capacity: 4 } })
  const open = tabsOf(t, site)
  const [skips, fails] = [open(), open({ onLag: 'fail' })] as const
  await Promise.all([skips.ready, fails.ready])
  const seen = [follow(skips), follow(fails)]
  await publishIndexes(site.broker, 1, 2)
  for (const each of seen) await hasSeen(each, 2)
  for (const { response } of site.exchanges) response.socket?.destroy()
  await publishIndexes(site.broker, 3, 20)
  await until(() => seen[0]?.at(-1) === 20, 'the newest')
  await hasSeen(seen[1] as unknown[], 3)
  const oldest = seen[0]?.[3] as number
  assert.ok(oldest > 3)
  assert.deepEqual(seen, [
    [1, 2, `2..${oldest} retention`, ...range(oldest, 20)],
    [1, 2, 'LAGGED'],
  ])
})

test('a refusal ends every tab with its reason', { skip }, async (t) => {
  const site = await start(t, {
    brokerOptions: {
      authorize: () => {
        throw new SpillwayError('UNAUTHORIZED', 'No token.')
      },
    },
  })
  const open = tabsOf(t, site)
  const tabs = [open(), open()]
  for (const { ready } of tabs) await assert.rejects(ready, withCode('UNAUTHORIZED'))
  await assert.rejects((tabs[0] as Subscription).next(), withCode('UNAUTHORIZED'))
})

test('bad options are refused at once, as by the client', { skip }, async (t) => {
  const site = await start(t)
  const open = tabsOf(t, site)
  assert.throws(() => open({ topics: {} }), withCode('INVALID'))
  for (const from of ['nowhere', -1, null, { since: 9e15 }] as never[]) {
    assert.throws(() => open({ from }), withCode('INVALID', /from|cursor/))
  }
  assert.throws(() => open({ onLag: 'other' as never }), withCode('INVALID'))
  assert.throws(() => createTabsClient({ url: site.url, user: 1 as never }), withCode('CONFIG'))
  assert.throws(() => createTabsClient({ url: 'nonsense:' }), withCode('CONFIG'))
})

test('every tab is told how the connection fares', { skip }, async (t) => {
  const running = await restartable(t)
  const open = tabsOf(t, running.site)
  const told: Status['state'][][] = [[], []]
  const tabs = told.map((states) => open({ onStatus: ({ state }) => states.push(state) }))
  await Promise.all(tabs.map(({ ready }) => ready))
  await running.down()
  for (const states of told) await until(() => states.includes('waiting'), 'it waits')
  await running.up()
  for (const states of told)
    await until(() => states.lastIndexOf('open') > states.indexOf('waiting'), 'it is open again')
  for (const tab of tabs) tab.close()
  for (const states of told) assert.equal(states.at(-1), 'closed')
})

test('whatever tabs come, go, and fall behind, each gets every batch after its start once, in order', {
  skip,
}, async (t) => {
  const random = seededRandom('tabs')
  const site = await start(t, { brokerOptions: { capacity: 100_000 } })
  const open = tabsOf(t, site)
  interface Tab {
    readonly subscription: Subscription
    readonly seen: number[]
    /** The index of the first batch that it gets, at least and at the most. `latest` is where the others are. */
    readonly first: readonly [number, number]
    isPaused: boolean
    goOn: () => void
  }
  const tabs: Tab[] = []
  let last = 0
  const publish = async (count: number) => {
    const payload = 'x'.repeat(random.oneIn(4) ? 40_000 : 10)
    for (let n = 0; n < count; n++) last = await site.broker.publish({ topic: 'T', type: 't', payload })
  }
  const read = async (tab: Tab) => {
    for (;;) {
      while (tab.isPaused) {
        await new Promise<void>((resolve) => {
          tab.goOn = resolve
        })
      }
      const { index, gap } = await tab.subscription.next()
      assert.equal(gap, undefined)
      tab.seen.push(index)
    }
  }
  const resume = (tab: Tab) => {
    tab.isPaused = false
    tab.goOn()
  }
  const openOne = async () => {
    const after = random.below(last + 1)
    const isLatest = random.oneIn(2)
    const subscription = open(isLatest ? {} : { from: `${site.broker.status.epoch}:${after}` })
    if (random.oneIn(2)) await publish(random.below(5))
    await subscription.ready
    const tab: Tab = {
      subscription,
      seen: [],
      first: isLatest ? [1, last + 1] : [after + 1, after + 1],
      isPaused: random.oneIn(4),
      goOn: () => {},
    }
    tabs.push(tab)
    read(tab).catch((error: unknown) => assert.ok(tab.subscription.closed, String(error)))
  }
  for (let step = 0; step < 150; step++) {
    const tab = tabs[random.below(tabs.length)]
    const choice = random.below(10)
    if (!tab || (choice < 2 && tabs.length < 6)) await openOne()
    else if (choice === 2) tabs.splice(tabs.indexOf(tab), 1)[0]?.subscription.close()
    else if (choice === 3 && tab.isPaused) resume(tab)
    else if (choice === 4 && !tab.isPaused) tab.isPaused = true
    else if (choice === 5) for (const { response } of site.exchanges) response.socket?.destroy()
    else await publish(random.below(40))
    if (random.oneIn(3)) await new Promise((resolve) => setImmediate(resolve))
  }
  await publish(3)
  for (const tab of tabs) resume(tab)
  for (const tab of tabs) {
    const { seen, subscription } = tab
    await until(
      () => seen.at(-1) === last,
      () => `the newest, ${last}; it got ${seen.length}, up to ${seen.at(-1)}, and stands at ${subscription.cursor}`,
    )
    const [from = 0] = tab.seen
    assert.ok(from >= tab.first[0] && from <= tab.first[1], `it began with ${from}, not in ${tab.first}`)
    assert.deepEqual(tab.seen, range(from, last))
  }
})

test('what comes together with the first message of a connection of its own is not lost', { skip }, async (t) => {
  const lines = [
    { open: { cursor: 'a:0', oldest: 1, newest: 3 } },
    ...range(1, 3).map((index) => ({ index, cursor: `a:${index}`, events: [{ topic: 'T', type: 't' }] })),
  ]
  let requests = 0
  const fetch = () => {
    if (requests++ > 0) return new Promise<never>(() => {})
    // As one piece, so that it is read in one turn.
    const body = lines.map((line) => `${JSON.stringify(line)}\n`).join('')
    return Promise.resolve(new Response(body, { headers: { 'content-type': 'application/x-ndjson' } }))
  }
  const open = tabsOf(t, { url: 'http://127.0.0.1' })
  const seen = follow(open({ from: 'earliest' }, { fetch: fetch as never }))
  await hasSeen(seen, 3)
  assert.deepEqual(seen, [1, 2, 3])
})
