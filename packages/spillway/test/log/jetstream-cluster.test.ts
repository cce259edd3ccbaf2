import assert from 'node:assert/strict'
import { after, before, type TestContext, test } from 'node:test'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect, type NatsConnection } from '@nats-io/transport-node'
import { type NatsCluster, type NatsNode, natsPrograms, startNatsCluster, whyNoNetwork } from '@spillway/engines'
import { encodeEvents, type PendingBatch } from '../../src/core/event.ts'
import { type JetStreamLog, jetstreamLog } from '../../src/log/jetstream.ts'
import { until } from '../support/http.ts'

/** From 2.12 on the engine stores groups of messages. */
const newest = natsPrograms().find(({ version }) => !/^2\.(9|10|11)\./.test(version))
const skip = newest ? false : 'there is no nats-server of 2.12 or newer'
const batch = (key: string): PendingBatch => encodeEvents([{ topic: 'T', type: 't', key }])

let cluster: NatsCluster
before(async () => {
  if (newest) cluster = await startNatsCluster({ program: newest.program })
})
after(() => cluster?.stop())

async function connection(t: TestContext, node = 0): Promise<NatsConnection> {
  const made = await connect({ servers: cluster.urls[node] as string, ignoreClusterUpdates: true })
  t.after(() => made.close())
  return made
}

async function open(t: TestContext, stream: string, line?: NatsConnection): Promise<JetStreamLog> {
  const log = await jetstreamLog({ connection: line ?? (await connection(t)), stream, replicas: 3 })
  t.after(() => log.close())
  return log
}

/** Which group each message of a stream belongs to. */
async function groupsOf(t: TestContext, stream: string, count: number): Promise<string[]> {
  const { streams } = await jetstreamManager(await connection(t))
  const messages = Array.from({ length: count }, (_, n) => streams.getMessage(stream, { seq: n + 1 }))
  return (await Promise.all(messages)).map((message) => message?.header.get('Nats-Batch-Id') ?? '')
}

async function keysOf(log: JetStreamLog): Promise<(string | undefined)[]> {
  const { batches } = await log.read(0, 1000)
  return batches.map(({ events }) => events[0]?.key)
}

test('appends that come together are one group, and a lone one is none', { skip }, async (t) => {
  const log = await open(t, 'together')
  await log.append([batch('a')])
  const appended = await Promise.all(['b', 'c', 'd'].map((key) => log.append([batch(key), batch(key)])))
  assert.deepEqual(
    appended.flatMap(({ indexes }) => indexes),
    [2, 3, 4, 5, 6, 7],
  )
  const [lone, ...groups] = await groupsOf(t, 'together', 7)
  assert.equal(lone, '')
  assert.equal(new Set(groups).size, 1)
  assert.notEqual(groups[0], '')
  assert.deepEqual(await keysOf(log), ['a', 'b', 'b', 'c', 'c', 'd', 'd'])
})

test('a group of which a message is lost on its way is sent again, and nothing of it is there twice', {
  skip,
}, async (t) => {
  const line = await connection(t)
  let dropped = 0
  const lossy = new Proxy(line, {
    get(target, name) {
      const value = Reflect.get(target, name, target)
      if (name !== 'publish') return typeof value === 'function' ? value.bind(target) : value
      return (subject: string, ...rest: []) => {
        if (subject.endsWith('.batch') && ++dropped === 2) return
        target.publish(subject, ...rest)
      }
    },
  })
  const log = await open(t, 'lossy', lossy)
  const appended = await Promise.all(['a', 'b', 'c'].map((key) => log.append([batch(key)])))
  assert.deepEqual(
    appended.flatMap(({ indexes }) => indexes),
    [1, 2, 3],
  )
  assert.deepEqual(await keysOf(log), ['a', 'b', 'c'])
  assert.ok(dropped > 3)
})

test('a stream that takes no groups gets one message after the other', { skip }, async (t) => {
  const line = await connection(t)
  const manager = await jetstreamManager(line)
  await (await open(t, 'plain')).close()
  const { config } = await manager.streams.info('plain')
  await manager.streams.update('plain', { ...config, allow_atomic: false })
  const log = await open(t, 'plain')
  await Promise.all(['a', 'b', 'c'].map((key) => log.append([batch(key)])))
  assert.deepEqual(await groupsOf(t, 'plain', 3), ['', '', ''])
  assert.deepEqual(await keysOf(log), ['a', 'b', 'c'])
  assert.equal((await manager.streams.info('plain')).config.allow_atomic, undefined, 'it is left as it is')
})

test('groups that are switched off while a log is open cost no event', { skip }, async (t) => {
  const manager = await jetstreamManager(await connection(t))
  const log = await open(t, 'switched')
  const { config } = await manager.streams.info('switched')
  await manager.streams.update('switched', { ...config, allow_atomic: false })
  await Promise.all(['a', 'b', 'c'].map((key) => log.append([batch(key)])))
  assert.deepEqual(await keysOf(log), ['a', 'b', 'c'])
})

test('an append that the engine refuses takes no other with it', { skip }, async (t) => {
  const manager = await jetstreamManager(await connection(t))
  const log = await open(t, 'small')
  const { config } = await manager.streams.info('small')
  await manager.streams.update('small', { ...config, max_msg_size: 2000 })
  const large = encodeEvents([{ topic: 'T', type: 't', payload: 'x'.repeat(2000) }])
  const appended = await Promise.allSettled([[batch('a')], [large], [batch('b')]].map((batches) => log.append(batches)))
  assert.deepEqual(
    appended.map((one) => (one.status === 'fulfilled' ? one.value.indexes : one.reason.code)),
    [[1], 'LOG_FAILED', [2]],
  )
  assert.deepEqual(await keysOf(log), ['a', 'b'])
})

test('servers that append to one stream at once lose and repeat nothing, and each keeps its order', {
  skip,
}, async (t) => {
  const logs = await Promise.all([0, 1, 2].map(async (node) => open(t, 'busy', await connection(t, node))))
  const told: string[] = []
  logs[0]?.follow(({ events }) => told.push(...events.map(({ key }) => key)))
  const count = 300
  await Promise.all(
    logs.flatMap((log, n) =>
      Array.from({ length: count }, (_, m) =>
        log.append(m % 10 === 0 ? [batch(`${n} ${m}`), batch(`${n} ${m}+`)] : [batch(`${n} ${m}`)]),
      ),
    ),
  )
  await logs[0]?.catchUp?.(Math.max(...logs.map(({ last }) => last)))
  for (const n of logs.keys()) {
    const wanted = Array.from({ length: count }, (_, m) =>
      m % 10 === 0 ? [`${n} ${m}`, `${n} ${m}+`] : [`${n} ${m}`],
    ).flat()
    assert.deepEqual(
      told.filter((key) => key.startsWith(`${n} `)),
      wanted,
    )
  }
})

test('a log whose node is cut off from the others says so while that still takes itself for the leader', {
  skip: skip || whyNoNetwork() || false,
}, async (t) => {
  const leader = await leaderOf('cut', t)
  const log = await open(t, 'cut', await connection(t, cluster.nodes.indexOf(leader)))
  await log.append([batch('a')])
  cluster.isolate(leader)
  t.after(() => cluster.heal())
  const late = log.append([batch('b')])
  await until(() => log.failure !== undefined, 'a failure')
  assert.doesNotMatch(String(log.failure), /has no leader/)
  cluster.heal()
  assert.deepEqual((await late).indexes.length, 1)
})

async function leaderOf(stream: string, t: TestContext): Promise<NatsNode> {
  await (await open(t, stream)).close()
  await cluster.waitUntilWhole(stream)
  return cluster.waitForLeader(stream)
}
