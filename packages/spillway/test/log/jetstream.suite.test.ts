import { after, before, test } from 'node:test'
import { jetstreamManager } from '@nats-io/jetstream'
import { connect, type NatsConnection } from '@nats-io/transport-node'
import { natsPrograms, startNats, startNatsCluster } from '@spillway/engines'
import { type JetStreamLog, jetstreamLog } from '../../src/log/jetstream.ts'
import { type LogLimits, logSuite } from '../../src/testing/index.ts'

const maxPayload = 8 * 2 ** 20

interface Engine {
  readonly urls: readonly string[]
  stop(): Promise<void>
}

/** The contract of logs on an engine that `start` starts. */
function suiteOn(name: string, start: () => Promise<Engine>, replicas: number): void {
  let engine: Engine
  let connection: NatsConnection
  before(async () => {
    engine = await start()
    connection = await connect({ servers: [...engine.urls] })
  })
  after(async () => {
    await connection.close()
    await engine.stop()
  })

  const limitsOf = new Map<string, LogLimits>()
  let count = 0
  const open = (stream: string) => {
    const limits = limitsOf.get(stream) as LogLimits
    return jetstreamLog({ connection, stream, replicas, allowOld: true, ...limits })
  }
  logSuite(
    name,
    async (limits, t) => {
      const stream = `suite-${++count}`
      limitsOf.set(stream, limits)
      t.after(async () => (await jetstreamManager(connection)).streams.delete(stream))
      return open(stream)
    },
    {
      without: ['ages', 'far indexes', 'keys of what is gone'],
      largestAppend: 5000,
      reopen: async (log) => {
        await log.close()
        return open((log as JetStreamLog).stream)
      },
    },
  )
}

const programs = natsPrograms()
if (programs.length === 0) test('the log in JetStream', { skip: 'there is no nats-server' }, () => {})
for (const { program, version } of programs) {
  suiteOn(
    `log in JetStream of nats-server ${version}`,
    async () => {
      const server = await startNats({ program, maxPayload })
      return { urls: [server.url], stop: () => server.remove() }
    },
    1,
  )
  // Older clusters lose what they acknowledged.
  if (version.startsWith('2.9.')) continue
  suiteOn(`log in three nodes of nats-server ${version}`, () => startNatsCluster({ program, maxPayload }), 3)
}
