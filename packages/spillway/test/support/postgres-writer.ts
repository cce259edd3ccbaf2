import { writeSync } from 'node:fs'
import postgres from 'postgres'
import { createBroker } from '../../src/core/broker.ts'
import { postgresLog } from '../../src/log/postgres.ts'

// A server that publishes numbers under ids until it is killed, and prints those that were acknowledged. Its argument is
// this as JSON. Each line ends with ` .`, so that one that was cut off is not taken for a whole one.

export interface PostgresWriterOptions {
  readonly url: string
  readonly name: string
  /** What its ids begin with. */
  readonly id: string
  readonly first: number
  /** Those of before whose answer was lost: they are repeated under their ids. */
  readonly repeat: readonly number[]
}

const { url, name, id, first, repeat } = JSON.parse(process.argv[2] as string) as PostgresWriterOptions
const log = await postgresLog({ sql: postgres(url, { max: 3, fetch_types: false }), name })
const broker = createBroker({ log, capacity: 100 })
const waiting = [...repeat]
let next = first
for (let n = 0; n < 8; n++) void publish()

async function publish(): Promise<void> {
  for (;;) {
    const n = waiting.shift() ?? next++
    const index = await broker.publish({ topic: 'T', type: 't', key: `${id} ${n}`, payload: n }, { id: `${id} ${n}` })
    writeSync(1, `${n} ${index} .\n`)
  }
}
