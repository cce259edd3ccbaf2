import { type JetStreamLog, jetstreamLog } from 'spillway/log/jetstream'
import type { EngineStore, Site } from '../contender.ts'
import { connectTo, connectToLeader, replicasOf } from './connect.ts'
import { overBroker, overLog } from './spillway.ts'

export async function logOf(site: Site): Promise<EngineStore> {
  const { log, close } = await open(site)
  return overLog(log, close)
}

export async function brokerOf(site: Site): Promise<EngineStore> {
  const { log, close } = await open(site)
  return overBroker(log, close)
}

async function open(site: Site): Promise<{ log: JetStreamLog; close: () => Promise<void> }> {
  const { stream } = site
  const maker = await connectTo(site.urls[0] as string)
  await (await jetstreamLog({ connection: maker, stream, replicas: replicasOf(site) })).close()
  await maker.close()
  const connection = await connectToLeader(site)
  const log = await jetstreamLog({ connection, stream })
  return { log, close: () => connection.close() }
}
