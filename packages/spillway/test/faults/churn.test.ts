import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import type { LocalBroker } from '../../src/core/broker.ts'
import { faces, followRequest, inParallel } from '../support/follower.ts'
import { handles, handlesMoreThan } from '../support/handles.ts'
import { ask, publishIndexes, serve, until } from '../support/http.ts'
import { type Random, seededRandom } from '../support/random.ts'

const moments = ['connected', 'half a request', 'request', 'first bytes', 'replay', 'live'] as const

/** Connects, goes as far as chance will have it, and leaves. Answers how far that was. */
function visit(port: number, random: Random): Promise<(typeof moments)[number]> {
  const moment = random.pick(moments)
  const from = moment === 'replay' ? 'earliest' : random.pick(['latest', 'earliest'])
  const request = followRequest(random.pick(faces), { from, token: `t${random.below(5)}` })
  const cut = random.below(request.length)
  const wanted = moment === 'replay' ? 1 + random.below(100_000) : moment === 'live' ? 600 + random.below(600) : 1
  const leave = random.pick(['destroy', 'end', 'resetAndDestroy'] as const)
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    socket.on('close', () => resolve(moment))
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ECONNRESET' && error.code !== 'EPIPE') reject(error)
    })
    socket.on('connect', () => {
      if (moment !== 'connected') socket.write(moment === 'half a request' ? request.slice(0, cut) : request)
      if (moment === 'connected' || moment === 'half a request' || moment === 'request') socket[leave]()
    })
    socket.on('data', () => {
      if (socket.bytesRead >= wanted) socket[leave]()
    })
  })
}

function heap(): number {
  globalThis.gc?.()
  globalThis.gc?.()
  return process.memoryUsage().heapUsed
}

test('N8: 20,000 clients that come and go at any moment leave no subscription, group, timer, listener or memory', async (t) => {
  const random = seededRandom('churn of 20,000')
  const site = await serve(t, { brokerOptions: { capacity: 2000 }, handler: { heartbeat: 30_000 } })
  await publishIndexes(site.broker, 1, 2000)
  const broker = site.broker as unknown as LocalBroker
  let groups = 0
  let groupsEver = 0
  const { lead, dismiss } = broker
  broker.lead = (like) => {
    groups++
    groupsEver++
    return lead.call(broker, like)
  }
  broker.dismiss = (leader) => {
    groups--
    dismiss.call(broker, leader)
  }
  const happened: Record<string, number> = {}
  const churn = async (visits: number): Promise<void> => {
    let isPublishing = true
    const publisher = (async () => {
      while (isPublishing) {
        await site.broker.publish({ topic: 'Tick', type: 'Ticked', payload: 'x'.repeat(100) })
        await setImmediate()
      }
    })()
    await inParallel(visits, 40, async () => {
      const moment = await visit(site.port, random)
      happened[moment] = (happened[moment] ?? 0) + 1
      site.exchanges.length = 0
    })
    isPublishing = false
    await publisher
    await until(
      () => site.broker.status.subscriptions === 0 && handles().TCPSocketWrap === undefined,
      () => `${site.broker.status.subscriptions} subscriptions, ${JSON.stringify(handles())}`,
    )
    // What is kept, and what was made of it for readers, is replaced by the same each time.
    for (let n = 0; n < 2001; n++)
      await site.broker.publish({ topic: 'Tick', type: 'Ticked', payload: 'x'.repeat(100) })
    await setImmediate()
  }
  await churn(15_000)
  const handlesBefore = handles()
  const heaps = [heap()]
  // V8 compiles anew and lets go late, about 0.9 MB at any time. What each visit leaves is there in every round: one of 24
  // bytes would be found.
  const isStill = () => (heaps.at(-1) as number) < 1.01 * (heaps.at(-2) as number)
  do {
    await churn(5000)
    heaps.push(heap())
  } while (!isStill() && heaps.length < 7)
  console.log(JSON.stringify({ ...happened, groups: groupsEver }))
  for (const moment of moments) assert.ok((happened[moment] ?? 0) > 1000, moment)
  assert.ok(groupsEver > 20, 'groups came and went')
  assert.equal(groups, 0)
  assert.equal((await ask(site, '/v1/status')).json.streams, 0)
  site.exchanges.length = 0
  await until(
    () => handlesMoreThan(handlesBefore).length === 0,
    () => `no more handles than before; ${handlesMoreThan(handlesBefore)}`,
  )
  assert.ok(isStill(), `the heap grows: ${heaps.join(', ')} bytes`)
  assert.deepEqual(site.errors, [])
})
