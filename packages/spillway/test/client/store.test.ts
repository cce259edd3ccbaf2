import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { byKey, createClient, newest, type StoreOptions, type StreamStore, toStore } from '../../src/client/index.ts'
import { type Site, type SiteOptions, serve, until } from '../support/http.ts'
import { turn } from '../support/waiting.ts'

interface Topics {
  Order: { total: number } | null
}

async function given<State>(
  t: TestContext,
  options: StoreOptions<State, never>,
  site: SiteOptions = {},
): Promise<{ site: Site; store: StreamStore<State>; publish(key: string, total?: number): Promise<number> }> {
  const served = await serve(t, site)
  const client = createClient<Topics>({ url: served.url, firstWait: 1 })
  const store = toStore(client, options as StoreOptions<State>)
  const publish = (key: string, total?: number) =>
    served.broker.publish({ topic: 'Order', type: 'OrderPlaced', key, payload: total === undefined ? null : { total } })
  return { site: served, store, publish }
}

/** Waits until the store shows what is wanted. */
async function shows<State>(store: StreamStore<State>, wanted: (state: State) => boolean): Promise<void> {
  await until(
    () => wanted(store.snapshot().state),
    () => JSON.stringify(store.snapshot()),
  )
}

test('a store follows while somebody listens, and resumes for the next one', async (t) => {
  const { site, store, publish } = await given(t, { ...newest(3), from: 'earliest' } as never)
  const keys = () => (store.snapshot().state as readonly { key: string }[]).map(({ key }) => key).join()
  assert.equal(store.snapshot().status.state, 'idle')
  await publish('a', 1)
  const seen: string[] = []
  const stop = store.subscribe(({ status }) => seen.push(status.state))
  await shows(store, () => keys() === 'a')
  assert.deepEqual([...new Set(seen)], ['connecting', 'open'])
  const stopOther = store.listen(() => {})
  stop()
  await publish('b', 2)
  await shows(store, () => keys() === 'a,b')
  stopOther()
  await until(() => site.broker.status.subscriptions === 0, 'nobody follows')
  assert.equal(store.snapshot().status.state, 'idle')
  for (const key of ['c', 'd']) await publish(key, 3)
  const stopLast = store.listen(() => {})
  t.after(stopLast)
  await shows(store, () => keys() === 'b,c,d')
  assert.equal(store.snapshot().cursor, site.broker.status.cursor)
})

test('who leaves and comes back at once keeps the stream', async (t) => {
  const { site, store } = await given(t, newest(3) as never)
  const stop = store.listen(() => {})
  await until(() => site.broker.status.subscriptions === 1, 'it follows')
  stop()
  t.after(store.listen(() => {}))
  await turn()
  assert.equal(site.exchanges.length, 1)
})

test('a view has the newest payload of each key, until the key is removed', async (t) => {
  const view = byKey({ remove: ({ payload }) => payload === null })
  const { store, publish } = await given(t, { ...view, from: 'earliest' } as never)
  t.after(store.listen(() => {}))
  await publish('a', 1)
  await publish('b', 2)
  await publish('a', 3)
  const entries = () => JSON.stringify([...(store.snapshot().state as ReadonlyMap<string, unknown>)])
  await shows(store, () => entries() === '[["a",{"total":3}],["b",{"total":2}]]')
  await publish('a')
  await shows(store, () => entries() === '[["b",{"total":2}]]')
})

test('a loss begins a view anew, or loads it', async (t) => {
  for (const withLoad of [false, true]) {
    let loads = 0
    const load = async () => {
      loads++
      return new Map([['loaded', loads]])
    }
    const { site, store, publish } = await given(
      t,
      { ...byKey(), from: 'earliest', ...(withLoad && { load }) } as never,
      { brokerOptions: { capacity: 4 } },
    )
    t.after(store.listen(() => {}))
    await publish('a', 1)
    const keys = () => [...(store.snapshot().state as ReadonlyMap<string, unknown>).keys()].join()
    await shows(store, () => keys() === (withLoad ? 'loaded,a' : 'a'))
    const { port } = site
    await site.stop()
    for (let n = 1; n <= 20; n++) await publish(`b${n}`, n)
    await serve(t, { broker: site.broker, port })
    await shows(store, () => keys().endsWith('b20'))
    assert.ok(!/(^|,)a(,|$)/.test(keys()), 'what may have changed meanwhile is not shown')
    assert.equal(keys().startsWith('loaded,b'), withLoad)
    assert.equal(loads, withLoad ? 2 : 0)
    assert.equal(store.snapshot().gap === undefined, withLoad)
  }
})

test('what came before an error is shown', async (t) => {
  const { site, store, publish } = await given(t, { ...newest(9), from: 'earliest', onLag: 'fail' } as never, {
    brokerOptions: { capacity: 4 },
  })
  for (let n = 1; n <= 3; n++) await publish(`${n}`, n)
  t.after(store.listen(() => {}))
  await shows(store, (state) => (state as readonly unknown[]).length === 3)
  const { port } = site
  await site.stop()
  for (let n = 4; n <= 20; n++) await publish(`${n}`, n)
  await serve(t, { broker: site.broker, port })
  await until(() => store.snapshot().status.state === 'closed', 'it has ended')
  assert.equal((store.snapshot().state as readonly unknown[]).length, 3)
  assert.match(store.snapshot().cursor, /:3$/)
})

test('a store whose options are wrong says so each time', async (t) => {
  const { store } = await given(t, { ...newest(3), from: 'nonsense' } as never)
  for (let n = 0; n < 2; n++) assert.throws(() => store.listen(() => {}), { code: 'INVALID' })
})

test('what cannot be loaded or reduced ends the store with the error', async (t) => {
  for (const failing of [
    { initial: 0, reduce: () => 0, load: () => Promise.reject(new Error('no')) },
    {
      initial: 0,
      reduce: () => {
        throw new Error('no')
      },
    },
  ]) {
    const { site, store, publish } = await given(t, { ...failing, from: 'earliest' } as never)
    t.after(store.listen(() => {}))
    await publish('a', 1)
    await until(() => store.snapshot().status.state === 'closed', 'it has ended')
    assert.match(String((store.snapshot().status as { error?: unknown }).error), /no/)
    await until(() => site.broker.status.subscriptions === 0, 'nobody follows')
  }
})

test('what loads the state gets a signal that is aborted when nobody listens', async (t) => {
  let signal: AbortSignal | undefined
  const load = (given: AbortSignal) => {
    signal = given
    return new Promise<never>((_, reject) => given.addEventListener('abort', () => reject(given.reason)))
  }
  const { store } = await given(t, { ...newest(3), load } as never)
  const stop = store.listen(() => {})
  await until(() => signal !== undefined, 'it loads')
  assert.equal(signal?.aborted, false)
  stop()
  await until(() => signal?.aborted === true, 'it is given up')
  assert.equal(store.snapshot().status.state, 'idle')
})

test('a view of several topics is filed as it says', () => {
  const { initial, reduce } = byKey({ key: ({ topic, key }) => `${topic} ${key}` })
  const events = ['A', 'B'].map((topic) => ({ topic, key: 'k', payload: topic }))
  const view = reduce(initial, { index: 1, cursor: 'e:1', events } as never)
  assert.deepEqual(
    [...view],
    [
      ['A k', 'A'],
      ['B k', 'B'],
    ],
  )
})
