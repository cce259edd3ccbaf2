import { test } from 'node:test'
import { natsPrograms, startNatsCluster, whyNoNetwork } from '@spillway/engines'
import { Random } from 'spillway/testing'
import { heartbeat } from './support/cluster/reader.ts'
import { runRounds } from './support/cluster/rounds.ts'
import { Server } from './support/cluster/server.ts'
import { Traffic } from './support/cluster/traffic.ts'

const { SEED, SPILLWAY_CLUSTER_ROUNDS: wanted = '20' } = process.env
const stream = 'test'
const names = ['a', 'b', 'c']
/** The newest, which stores groups, and the one before, which stores chains of messages. Those before 2.10.23 lose what they acknowledged. Older ones get fewer rounds. */
const programs = natsPrograms().filter(({ version }) => !version.startsWith('2.9.'))

if (programs.length === 0) test('a cluster', { skip: 'there is no nats-server on this machine' }, () => {})
for (const [n, { program, version }] of programs.entries()) {
  test(`no acknowledged batch is lost, and each reader has each once and in order, whatever node or server fails, with nats-server ${version}`, async (t) => {
    const seed = SEED === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(SEED)
    t.diagnostic(`SEED=${seed}`)
    const cluster = await startNatsCluster({ program })
    t.after(() => cluster.stop())
    if (!cluster.canCut) t.diagnostic(`Without cuts: ${whyNoNetwork()}`)
    const log = ['--log', cluster.urls.join(','), '--log-name', stream, '--replicas', '3']
    const args = [...log, '--heartbeat', `${heartbeat}ms`, '--capacity', '100000']
    const servers = await Promise.all(names.map((name) => Server.start(t, name, args)))
    const traffic = new Traffic({ servers, seed })
    t.after(() => traffic.abandon())
    await traffic.everyServerWrites()
    await cluster.waitUntilWhole(stream)
    const rounds = Math.ceil(Number(wanted) / (n + 1))
    await runRounds({ cluster, stream, servers, traffic, random: new Random(seed) }, rounds, (line) =>
      t.diagnostic(line),
    )
  })
}
