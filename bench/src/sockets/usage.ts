import { readdirSync, readFileSync } from 'node:fs'

export interface Usage {
  /** Microseconds of CPU that the process has used so far. */
  readonly cpu: number
  /** Bytes of memory that are its own at the moment. */
  readonly rss: number
}

/** Of this process, or of the process `pid`. */
export function usageOf(pid?: number): Usage {
  if (pid === undefined) {
    const { user, system } = process.cpuUsage()
    return { cpu: user + system, rss: process.memoryUsage.rss() }
  }
  // Nanoseconds on the CPU, thread by thread; `stat` only counts in hundredths of a second.
  const threads = readdirSync(`/proc/${pid}/task`)
  const cpu = threads.reduce((sum, thread) => {
    return sum + Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ')[0])
  }, 0)
  const kilobytes = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]
  return { cpu: cpu / 1000, rss: Number(kilobytes) * 1024 }
}
