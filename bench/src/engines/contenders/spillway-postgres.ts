import postgres from 'postgres'
import { type PostgresLog, postgresLog } from 'spillway/log/postgres'
import type { EngineStore, Site } from '../contender.ts'
import { overBroker, overLog } from './spillway.ts'

export async function logOf(site: Site): Promise<EngineStore> {
  const { log, close } = await open(site)
  return overLog(log, close)
}

export async function brokerOf(site: Site): Promise<EngineStore> {
  const { log, close } = await open(site)
  return overBroker(log, close)
}

async function open({ urls, stream }: Site): Promise<{ log: PostgresLog; close: () => Promise<void> }> {
  const sql = postgres(urls[0] as string, { onnotice: () => {} })
  const log = await postgresLog({ sql, name: stream })
  return { log, close: () => sql.end({ timeout: 5 }) }
}
