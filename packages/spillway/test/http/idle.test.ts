import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import * as v8 from 'node:v8'
import { Filter } from '../../src/core/filter.ts'
import { BrokerSubscription } from '../../src/core/subscription.ts'
import { LevelGroup } from '../../src/http/fan-out/level-group.ts'
import { Piece } from '../../src/http/fan-out/sink.ts'
import { EventStream } from '../../src/http/fan-out/stream.ts'
import { type Site, serve, until } from '../support/http.ts'
import { get, RawClient } from '../support/raw.ts'

type Constructor = abstract new (...of: never[]) => object
const { queryObjects } = v8 as { queryObjects?: (of: Constructor, options: { format: 'count' }) => number }

async function idle(t: TestContext, site: Site, count: number): Promise<void> {
  const before = site.broker.status.subscriptions
  for (let n = 0; n < count; n++) {
    const client = await RawClient.open(t, site.port, get('/v1/events?topic=Order:A1'))
    await client.bodyWith('id: ')
  }
  await until(() => site.broker.status.subscriptions === before + count, 'all are there')
  await site.broker.publish({ topic: 'Order', type: 'Placed', key: 'A1' })
  // Some turns, for all to have read it and to be level.
  for (let n = 0; n < 5; n++) await setImmediate()
}

test('an idle connection costs one stream and one subscription; what many want and send is there once', {
  skip: queryObjects ? false : 'this Node has no v8.queryObjects',
}, async (t) => {
  const site = await serve(t)
  const counts = () => {
    globalThis.gc?.()
    const kinds = { EventStream, BrokerSubscription, LevelGroup, Filter, Piece }
    return Object.entries(kinds).map(([name, of]) => [name, queryObjects?.(of, { format: 'count' }) ?? 0] as const)
  }
  await idle(t, site, 50)
  const few = new Map(counts())
  await idle(t, site, 200)
  const more = counts().map(([name, count]) => [name, count - (few.get(name) ?? 0)])
  const pieces = Number(more.pop()?.[1])
  assert.deepEqual(more, [
    ['EventStream', 200],
    ['BrokerSubscription', 200],
    ['LevelGroup', 0],
    ['Filter', 0],
  ])
  assert.ok(pieces < 10, `${pieces} pieces more`)
})
