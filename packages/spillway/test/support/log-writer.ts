import { writeSync } from 'node:fs'
import { createBroker } from '../../src/core/broker.ts'
import type { SqliteLogOptions } from '../../src/log/sqlite.ts'
import { sqliteLog } from '../../src/log/sqlite.ts'
import { numberedBatches } from './log-files.ts'

// A program that publishes numbered batches into a log until it is killed, and prints what was acknowledged. Its one
// argument is this as JSON. Each line ends with ` .`, so that one that was cut off is not taken for a whole one.

export interface LogWriterOptions extends Pick<SqliteLogOptions, 'path' | 'durability'> {
  /** How many publish at a time. 0: it only holds the log open. */
  publishers: number
  /** The number of its first append. */
  first: number
  /** Appends of before whose answer was lost: they are repeated under their ids. */
  repeat: readonly number[]
}

const { publishers, first, repeat, ...options } = JSON.parse(process.argv[2] as string) as LogWriterOptions
const log = await sqliteLog(options)
const broker = createBroker({ log, capacity: 100 })
say(`opened ${JSON.stringify({ epoch: log.epoch, last: log.last, lost: log.lost ?? null })}`)
const waiting = [...repeat]
let next = first
for (let n = 0; n < publishers; n++) void publish()
setInterval(() => {}, 60_000)

async function publish(): Promise<void> {
  for (;;) {
    const n = waiting.shift() ?? next++
    const batches = numberedBatches(n).map(({ events }) => ({ events: events.map(({ view }) => view) }))
    const indexes = await broker.publishAll(batches, { id: `${n}` })
    say(`stored ${n} ${indexes.join(',')}`)
  }
}

/** Before anything else happens: a line is out once this returns. */
function say(line: string): void {
  let rest = Buffer.from(`${line} .\n`)
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(1, rest))
    } catch (error) {
      // The reader is slow, and the pipe is one that does not block.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
    }
  }
}
