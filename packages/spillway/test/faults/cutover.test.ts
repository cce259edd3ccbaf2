import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { type Broker, createBroker } from '../../src/core/broker.ts'
import { type Face, faces, follow, followRequest, inParallel } from '../support/follower.ts'
import { serve, until } from '../support/http.ts'
import { type Random, seededRandom } from '../support/random.ts'

const capacity = 1000

/** Publishes as fast as it can, until it is stopped. */
function writeFlatOut(broker: Broker): { stop(): Promise<void> } {
  let running = true
  const done = (async () => {
    while (running) {
      for (let n = 0; n < 50; n++) {
        const payload = broker.status.newestIndex + 1
        await broker.publish({ topic: 'T', type: 't', payload }, { index: payload })
      }
      await setImmediate()
    }
  })()
  return {
    async stop() {
      running = false
      await done
    },
  }
}

/** A cursor that is kept, just dropped, or about to be dropped. */
function randomIndex(random: Random, { newestIndex, floor }: Broker['status']): number {
  return random.pick([
    floor + random.below(newestIndex - floor + 1),
    floor + random.below(5),
    Math.max(0, floor - random.below(20)),
    newestIndex - random.below(3),
  ])
}

/** Checks that what came is what follows `at`, without a hole that was not told. */
function judge(
  at: number,
  story: readonly ({ index: number; payloads: readonly unknown[] } | { after: number; before: number })[],
): number {
  let last = at
  for (const one of story) {
    if ('before' in one) {
      assert.equal(one.after, last, 'the gap begins where the reader stands')
      assert.ok(one.before > last + 1)
      last = one.before - 1
      continue
    }
    assert.equal(one.index, last + 1, `after ${last}`)
    assert.deepEqual(one.payloads, [one.index])
    last = one.index
  }
  return last
}

test('N18: 20,000 resumes from random cursors while the writer runs flat out go on exactly, or are told what was lost', async () => {
  const random = seededRandom('cutover')
  const broker = createBroker({ capacity })
  const writer = writeFlatOut(broker)
  await until(() => broker.status.floor > capacity, 'the buffer is full')
  const happened = { resumes: 0, gaps: 0, live: 0 }
  await inParallel(20_000, 40, async () => {
    const at = randomIndex(random, broker.status)
    const subscription = broker.subscribe({ from: `${broker.status.epoch}:${at}`, onLag: 'skip' })
    const wanted = 1 + random.below(60)
    const story: Parameters<typeof judge>[1][number][] = []
    for (let n = 0; n < wanted; n++) {
      if (subscription.lag === 0) happened.live++
      const { gap, index, events } = await subscription.next()
      if (gap) happened.gaps++
      story.push(gap ?? { index, payloads: events.map(({ payload }) => payload) })
      if (random.oneIn(40)) await setImmediate()
    }
    const last = judge(at, story)
    assert.equal(subscription.cursor, `${broker.status.epoch}:${last}`)
    subscription.close()
    happened.resumes++
  })
  await writer.stop()
  console.log(JSON.stringify({ ...happened, published: broker.status.newestIndex }))
  assert.ok(happened.gaps > 500 && happened.live > 500 && broker.status.newestIndex > 5 * capacity, 'it was a race')
  assert.equal(broker.status.subscriptions, 0)
  await broker.close()
})

test('N18: 600 resumes over HTTP while the writer runs flat out go on exactly, or are told what was lost', async (t) => {
  const random = seededRandom('cutover over HTTP')
  const site = await serve(t, { brokerOptions: { capacity } })
  const writer = writeFlatOut(site.broker)
  await until(() => site.broker.status.floor > capacity, 'the buffer is full')
  const { epoch } = site.broker.status
  let gaps = 0
  let batches = 0
  await inParallel(600, 12, async (n) => {
    const face = faces[n % 3] as Face
    const at = randomIndex(random, site.broker.status)
    const client = follow(site.port, face, followRequest(face, { from: face === 'Nomad' ? at : `${epoch}:${at}` }))
    const wanted = 1 + random.below(200)
    await until(() => client.follower.batches.length >= wanted, `${wanted} batches`)
    client.socket.destroy()
    const { story } = client.follower
    // Nomad's face begins at the oldest that is kept where an index is older, as Nomad does, and cannot tell of it.
    const [first] = story
    const start = face === 'Nomad' && first && 'index' in first && first.index > at + 1 ? first.index - 1 : at
    judge(start, story)
    gaps += client.follower.gaps.length
    batches += client.follower.batches.length
    site.exchanges.length = 0
  })
  await writer.stop()
  console.log(JSON.stringify({ gaps, batches, published: site.broker.status.newestIndex }))
  assert.ok(gaps > 20 && batches > 10_000)
  await until(() => site.broker.status.subscriptions === 0, 'all streams are gone')
})
