import { after, before, test } from 'node:test'
import { connect, type NatsConnection } from '@nats-io/transport-node'
import { type NatsServer, natsPrograms, startNats } from '@spillway/engines'
import { type JetStreamLog, jetstreamLog } from '../../src/log/jetstream.ts'
import { type LogLimits, logSuite } from '../../src/testing/index.ts'

if (natsPrograms().length === 0) test('the log in JetStream', { skip: 'there is no nats-server' }, () => {})
for (const { program, version } of natsPrograms()) {
  let server: NatsServer
  let connection: NatsConnection
  before(async () => {
    server = await startNats({ program, maxPayload: 8 * 2 ** 20 })
    connection = await connect({ servers: server.url })
  })
  after(async () => {
    await connection.close()
    await server.remove()
  })

  const limitsOf = new Map<string, LogLimits>()
  let count = 0
  const open = (stream: string) => {
    const limits = limitsOf.get(stream) as LogLimits
    return jetstreamLog({ connection, stream, allowOld: true, patience: 10_000, ...limits })
  }
  logSuite(
    `log in JetStream of nats-server ${version}`,
    async (limits, t) => {
      const stream = `suite-${++count}`
      limitsOf.set(stream, limits)
      t.after(async () => {
        const { jetstreamManager } = await import('@nats-io/jetstream')
        await (await jetstreamManager(connection)).streams.delete(stream)
      })
      return open(stream)
    },
    {
      without: ['ages', 'far indexes', 'reused keys'],
      reopen: async (log) => {
        await log.close()
        return open((log as JetStreamLog).stream)
      },
    },
  )
}
