import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { compiled } from '../../sockets/native.ts'
import type { Delays, Outcome, Stream } from '../contender.ts'

/** Lets `native/ring.c` write and read what `stream` says. `each`: published per record. */
export async function streamInC(each: boolean, stream: Stream): Promise<Outcome> {
  const { ring, readers, paced, ahead, thorough, records, warmup, ms, sizes } = stream
  const flags = [each ? 1 : 64, paced ? ahead : 0, thorough ? 1 : 0, records, warmup, ms]
  return inProgram<Outcome>('stream', ring, readers, ...flags, ...sizes)
}

export function wakeInC(count: number, size: number): Promise<Delays> {
  return inProgram<Delays>('wake', count, size)
}

async function inProgram<Answer>(task: string, ...numbers: readonly number[]): Promise<Answer> {
  const { stdout } = await promisify(execFile)(await compiled('ring'), [task, ...numbers.map(String)])
  return JSON.parse(stdout)
}
