import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { type JetStreamClient, type JetStreamManager, jetstream, jetstreamManager } from '@nats-io/jetstream'
import { connect, type NatsConnection } from '@nats-io/transport-node'
import { type NatsCluster, type NatsNode, natsPrograms, startNatsCluster, whyNoNetwork } from '@spillway/engines'

const skip = natsPrograms().length === 0 && 'there is no nats-server on this machine'

describe('a cluster of NATS', { skip }, () => {
  let cluster: NatsCluster
  let connection: NatsConnection
  let streams: JetStreamManager['streams']
  let client: JetStreamClient

  before(async () => {
    cluster = await startNatsCluster()
    connection = await connect({ servers: [...cluster.urls], reconnectTimeWait: 50, maxReconnectAttempts: -1 })
    const manager = await jetstreamManager(connection, { timeout: 1000, checkAPI: false })
    streams = manager.streams
    client = jetstream(connection)
    await eventually(() => streams.add({ name: 'S', subjects: ['s'], num_replicas: 3 }))
    await cluster.waitUntilWhole('S')
  })

  after(async () => {
    await connection?.close()
    await cluster?.stop()
  })

  test('takes writes after its leader was killed, and is whole again once that is back', async () => {
    const leader = await cluster.waitForLeader('S')
    await leader.kill()
    assert.equal(leader.state, 'down')
    await publish()
    assert.notEqual(await cluster.waitForLeader('S'), leader)
    await leader.start()
    await cluster.waitUntilWhole('S')
  })

  test('a node whose store was deleted gets all of it back', async () => {
    const leader = await cluster.waitForLeader('S')
    const follower = cluster.nodes.find((node) => node !== leader) as NatsNode
    const written = await publish()
    await follower.wipe()
    await cluster.waitUntilWhole('S')
    assert.ok((await lastSequence(follower)) >= written)
  })

  test('a paused node does nothing, and catches up once resumed', async () => {
    const leader = await cluster.waitForLeader('S')
    const follower = cluster.nodes.find((node) => node !== leader) as NatsNode
    await follower.pause()
    const written = await publish()
    await assert.rejects(fetch(`${follower.monitor}/varz`, { signal: AbortSignal.timeout(300) }))
    follower.resume()
    await cluster.waitUntilWhole('S')
    assert.ok((await lastSequence(follower)) >= written)
  })

  test('a cut drops what one node sends to another, and nothing else, until it is healed', {
    skip: whyNoNetwork(),
  }, async () => {
    const leader = await cluster.waitForLeader('S')
    const [follower, other] = cluster.nodes.filter((node) => node !== leader) as [NatsNode, NatsNode]
    const before = await lastSequence(follower)
    cluster.cut(leader, follower)
    // The majority needs the other one, so that gets it, and stores it once it hears that it has its majority.
    const written = await publish()
    await eventually(async () => assert.ok((await lastSequence(other)) >= written))
    assert.equal(await lastSequence(follower), before)
    cluster.heal()
    await cluster.waitUntilWhole('S')
    assert.ok((await lastSequence(follower)) >= written)
  })

  test('an isolated leader is replaced, and follows once healed', { skip: whyNoNetwork() }, async () => {
    const leader = await cluster.waitForLeader('S')
    cluster.isolate(leader)
    const others = cluster.nodes.filter((node) => node !== leader)
    await eventually(async () => assert.ok(others.includes(await cluster.waitForLeader('S'))))
    cluster.heal()
    await cluster.waitUntilWhole('S')
  })

  const publish = () => eventually(async () => (await client.publish('s', 'x', { timeout: 1000 })).seq)

  async function lastSequence(node: NatsNode): Promise<number> {
    const answer = await fetch(`${node.monitor}/jsz?accounts=true&streams=true`)
    // biome-ignore lint/suspicious/noExplicitAny: of all that it answers one number is read.
    const view = (await answer.json()) as any
    return view.account_details[0].stream_detail[0].state.last_seq
  }
})

/** Repeats what fails while a cluster has no leader. */
async function eventually<T>(attempt: () => Promise<T>): Promise<T> {
  for (let left = 300; ; left--) {
    try {
      return await attempt()
    } catch (error) {
      if (left === 0) throw error
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
}
