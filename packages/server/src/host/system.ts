import { readdir, readFile } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'

/** Time that the processors spent since the machine started, in milliseconds, all of them added up. */
export interface CpuTimes {
  readonly busy: number
  readonly total: number
}

/** What is read of a machine. */
export interface HostSystem {
  readonly name: string
  /** Milliseconds that only grow. */
  now(): number
  cpus(): { readonly count: number; readonly times: CpuTimes }
  load(): readonly number[]
  memory(): { readonly total: number; readonly available: number }
  /** The names in a folder below /proc. Rejects if there is none. */
  list(folder: string): Promise<readonly string[]>
  /** The text of a file below /proc. Rejects if it cannot be read. */
  read(file: string): Promise<string>
}

/** The machine this process runs on. */
export function thisHost(proc = '/proc'): HostSystem {
  return {
    name: os.hostname(),
    now: () => performance.now(),
    cpus() {
      const cpus = os.cpus()
      const times = { busy: 0, total: 0 }
      for (const { times: spent } of cpus) {
        const busy = spent.user + spent.nice + spent.sys + spent.irq
        times.busy += busy
        times.total += busy + spent.idle
      }
      return { count: cpus.length, times }
    },
    load: () => os.loadavg(),
    // On Linux the free memory that libuv tells is what the kernel calls available.
    memory: () => ({ total: os.totalmem(), available: os.freemem() }),
    list: (folder) => readdir(path.join(proc, folder)),
    read: (file) => readFile(path.join(proc, file), 'utf8'),
  }
}
