import type { EngineContender, EngineId } from './contender.ts'

export const ours = 'spillway'
export const throughBroker = 'spillway, broker'
export const bare = 'js.publish + consume'
export const parsed = 'js.publish + consume, parsed'
export const inPages = 'js.publish + fetch'
export const unread = 'floor: js.publish, no ids, not read'
export const insert = 'INSERT ... RETURNING'
export const insertParsed = 'INSERT ... RETURNING, parsed'
export const notified = 'INSERT + pg_notify, read'
export const grouped = 'floor: INSERT of 100 rows'

type Open = EngineContender['open']

// Loaded when wanted: a process with one client need not load the other.
const jetstream = (open: 'logOf' | 'brokerOf'): Open => {
  return async (site) => (await import('./contenders/spillway-jetstream.ts'))[open](site)
}
const postgres = (open: 'logOf' | 'brokerOf'): Open => {
  return async (site) => (await import('./contenders/spillway-postgres.ts'))[open](site)
}
const nats = (open: 'consuming' | 'parsing' | 'fetching' | 'unread'): Open => {
  return async (site) => (await import('./contenders/nats.ts'))[open](site)
}
const sql = (open: 'oneByOne' | 'parsing' | 'notifying' | 'inGroups'): Open => {
  return async (site) => (await import('./contenders/sql.ts'))[open](site)
}

const inJetStream: readonly EngineContender[] = [
  { name: ours, role: 'ours', joins: true, open: jetstream('logOf') },
  { name: throughBroker, role: 'ours', joins: true, sharesWith: ours, open: jetstream('brokerOf') },
  { name: bare, role: 'peer', joins: true, open: nats('consuming') },
  { name: parsed, role: 'peer', joins: true, sharesWith: bare, open: nats('parsing') },
  { name: inPages, role: 'peer', joins: true, sharesWith: bare, open: nats('fetching') },
  { name: unread, role: 'floor', joins: true, open: nats('unread') },
]

const inPostgres: readonly EngineContender[] = [
  { name: ours, role: 'ours', joins: true, open: postgres('logOf') },
  { name: throughBroker, role: 'ours', joins: true, sharesWith: ours, open: postgres('brokerOf') },
  { name: insert, role: 'peer', joins: true, open: sql('oneByOne') },
  { name: insertParsed, role: 'peer', joins: true, sharesWith: insert, open: sql('parsing') },
  { name: notified, role: 'peer', joins: true, open: sql('notifying') },
  { name: grouped, role: 'floor', joins: false, open: sql('inGroups') },
]

export function engineContender(engine: EngineId, name: string): EngineContender {
  const found = (engine === 'pg' ? inPostgres : inJetStream).find((contender) => contender.name === name)
  if (!found) throw new Error(`There is no contender "${name}" with ${engine}.`)
  return found
}
