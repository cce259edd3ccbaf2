import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { type Broker, createBroker } from '../../src/core/broker.ts'
import { type Site, serve, until } from '../support/http.ts'
import { type NatsSite, natsSite, noNats } from '../support/nats.ts'
import { seededRandom } from '../support/random.ts'
import { followNdjson } from '../support/streams.ts'

const servers = 3
const hops = 1000
/** Publishes that each server has under way. */
const underWay = 4
/** Small, so that a reader that fell behind is served from the engine, too. */
const capacity = 500

test('a reader that hops between servers 1,000 times at full rate goes on exactly where it was, each time', {
  skip: noNats,
}, async (t) => {
  const engine = await natsSite(t)
  const sites = await Promise.all(Array.from({ length: servers }, () => server(t, engine)))
  const random = seededRandom('hops')
  const steady: string[] = []
  const log = await engine.open()
  log.follow(({ index, events }) => steady.push(`${index} ${events[0]?.key}`))
  const stopPublishing = publishAtFullRate(sites.map(({ broker }) => broker))
  const hopping: string[] = []
  let cursor = 'earliest'
  for (let hop = 0; hop < hops; hop++) {
    const reader = await followNdjson(t, sites[hop % servers] as Site, `?from=${cursor}`)
    const newest = ((await reader.next()) as { open: { newest: number } }).open.newest
    // Either a few, or all that there are: it resumes from the engine's pages, from memory, and at the end.
    const enough = random.oneIn(2) ? 1 + random.below(20) : Number.POSITIVE_INFINITY
    for (let read = 0; read < enough; read++) {
      const line = (await reader.next()) as { index: number; cursor: string; events: { key: string }[] }
      assert.ok(line.events, `in place of a batch: ${JSON.stringify(line)}`)
      hopping.push(`${line.index} ${line.events[0]?.key}`)
      cursor = line.cursor
      if (line.index >= newest) break
    }
    reader.stream.close()
  }
  await stopPublishing()
  await until(() => steady.length >= hopping.length, 'the log told what the reader has')
  assert.deepEqual(hopping, steady.slice(0, hopping.length))
  t.diagnostic(`${hopping.length} batches of ${steady.length} in ${hops} hops`)
})

async function server(t: TestContext, engine: NatsSite): Promise<Site> {
  const log = await engine.open()
  const broker = createBroker({ log, capacity })
  const site = await serve(t, { broker })
  t.after(() => broker.close())
  return site
}

/** Lets each of the brokers publish as fast as the log takes it. Returns what ends it, once all is answered. */
function publishAtFullRate(brokers: readonly Broker[]): () => Promise<void> {
  let isOver = false
  const publish = async (broker: Broker, name: string) => {
    for (let n = 0; !isOver; n++) await broker.publish({ topic: 'T', type: 't', key: `${name}.${n}` })
  }
  const all = Promise.all(
    brokers.flatMap((broker, b) => Array.from({ length: underWay }, (_, p) => publish(broker, `${b}.${p}`))),
  )
  // A test that fails closes the brokers under them.
  all.catch(() => {})
  return async () => {
    isOver = true
    await all
  }
}
