import { jetstreamManager } from '@nats-io/jetstream'
import { connect, type NatsConnection } from '@nats-io/transport-node'
import type { Site } from '../contender.ts'

/** To the node that leads the stream, if there are several: so all contenders have the same way. */
export async function connectToLeader({ urls, stream }: Site): Promise<NatsConnection> {
  const [first = '', ...others] = urls
  let connection = await connectTo(first)
  if (others.length === 0) return connection
  const manager = await jetstreamManager(connection)
  const { cluster } = await manager.streams.info(stream)
  for (const url of others) {
    if (connection.info?.server_name === cluster?.leader) break
    await connection.close()
    connection = await connectTo(url)
  }
  return connection
}

export const connectTo = (url: string): Promise<NatsConnection> => connect({ servers: url, ignoreClusterUpdates: true })

/** What a stream made by hand has: the same as Spillway's. */
export const replicasOf = ({ engine }: Site): number => (engine === 'r3' ? 3 : 1)
