import type { EventInput } from 'spillway'
import {
  cleanName,
  type DiskCounters,
  type NetworkCounters,
  type ProcessInfo,
  parseDiskStats,
  parseNetDev,
  parseProcessStat,
} from './parse.ts'
import type { CpuTimes, HostSystem } from './system.ts'

/** Counters, and when they were read. */
interface Reading<T> {
  readonly at: number
  readonly counters: ReadonlyMap<string, T>
}

/** How many files of processes are read at a time: each holds a thread of the pool that all files share. */
const readsAtOnce = 16

/**
 * Turns what a machine counts into events. Rates need two looks, so the first sample has none, and processes that run
 * already at the first look are not told of. What cannot be read is left out.
 */
export class HostSampler {
  readonly #system: HostSystem
  #cpu: CpuTimes | undefined
  #disks: Reading<DiskCounters> | undefined
  #networks: Reading<NetworkCounters> | undefined
  #processes: Map<number, ProcessInfo> | undefined

  constructor(system: HostSystem) {
    this.#system = system
  }

  /** What happened since the last sample, as the events of one batch. */
  async sample(): Promise<EventInput[]> {
    return [this.#host(), ...(await this.#disk()), ...(await this.#network()), ...(await this.#process())]
  }

  #host(): EventInput {
    const system = this.#system
    const { count, times } = system.cpus()
    const { total, available } = system.memory()
    const payload = {
      load: system.load().map((value) => rounded(value, 2)),
      memory: { total, available, used: total - available },
      cpu: { count, use: this.#cpu ? cpuUse(this.#cpu, times) : null },
    }
    this.#cpu = times
    return { topic: 'Host', type: 'HostSampled', key: cleanName(system.name), payload }
  }

  async #disk(): Promise<EventInput[]> {
    const before = this.#disks
    this.#disks = await this.#readCounters('diskstats', parseDiskStats)
    return rates(before, this.#disks, (device, now, then, perSecond) => ({
      topic: 'Disk',
      type: 'DiskSampled',
      key: device,
      payload: {
        readsPerSecond: perSecond(now.reads, then.reads),
        writesPerSecond: perSecond(now.writes, then.writes),
        readBytesPerSecond: perSecond(now.readBytes, then.readBytes),
        writtenBytesPerSecond: perSecond(now.writtenBytes, then.writtenBytes),
      },
    }))
  }

  async #network(): Promise<EventInput[]> {
    const before = this.#networks
    this.#networks = await this.#readCounters('net/dev', parseNetDev)
    return rates(before, this.#networks, (name, now, then, perSecond) => ({
      topic: 'Network',
      type: 'NetworkSampled',
      key: name,
      payload: {
        rxBytesPerSecond: perSecond(now.rxBytes, then.rxBytes),
        txBytesPerSecond: perSecond(now.txBytes, then.txBytes),
      },
    }))
  }

  async #process(): Promise<EventInput[]> {
    const running = await this.#pids()
    if (!running) return []
    const known = this.#processes
    // A number comes round again only after tens of thousands of others, so within a second it is the same process.
    const started = await this.#look([...running].filter((pid) => !known?.has(pid)))
    const ended = [...(known?.values() ?? [])].filter(({ pid }) => !running.has(pid))
    this.#processes = new Map(known)
    for (const { pid } of ended) this.#processes.delete(pid)
    for (const info of started) this.#processes.set(info.pid, info)
    if (!known) return []
    return [
      ...ended.map((info) => processEvent('ProcessEnded', info)),
      ...started.map((info) => processEvent('ProcessStarted', info)),
    ]
  }

  async #pids(): Promise<Set<number> | undefined> {
    try {
      const names = await this.#system.list('.')
      return new Set(names.filter((name) => /^[0-9]+$/.test(name)).map(Number))
    } catch {
      return undefined
    }
  }

  async #look(pids: readonly number[]): Promise<ProcessInfo[]> {
    const found: ProcessInfo[] = []
    for (let i = 0; i < pids.length; i += readsAtOnce) {
      const texts = await Promise.allSettled(
        pids.slice(i, i + readsAtOnce).map((pid) => this.#system.read(`${pid}/stat`)),
      )
      for (const text of texts) {
        const info = text.status === 'fulfilled' ? parseProcessStat(text.value) : undefined
        if (info) found.push(info)
      }
    }
    return found
  }

  async #readCounters<T>(file: string, parse: (text: string) => Map<string, T>): Promise<Reading<T> | undefined> {
    try {
      const text = await this.#system.read(file)
      return { at: this.#system.now(), counters: parse(text) }
    } catch {
      return undefined
    }
  }
}

type PerSecond = (now: number, then: number) => number

function rates<T>(
  before: Reading<T> | undefined,
  after: Reading<T> | undefined,
  event: (key: string, now: T, then: T, perSecond: PerSecond) => EventInput,
): EventInput[] {
  if (!before || !after || after.at <= before.at) return []
  const seconds = (after.at - before.at) / 1000
  // A counter that fell was reset, by a device that came back under the same name.
  const perSecond: PerSecond = (now, then) => rounded(Math.max(0, now - then) / seconds, 1)
  const events: EventInput[] = []
  for (const [key, now] of after.counters) {
    const then = before.counters.get(key)
    if (then) events.push(event(key, now, then, perSecond))
  }
  return events
}

// Only the name: the arguments of a process may hold secrets.
function processEvent(type: 'ProcessStarted' | 'ProcessEnded', { pid, name, parent }: ProcessInfo): EventInput {
  return { topic: 'Process', type, key: String(pid), filterKeys: [name], payload: { pid, name, parent } }
}

/** The share of time that the processors were busy, from 0 to 1. */
function cpuUse(then: CpuTimes, now: CpuTimes): number | null {
  const total = now.total - then.total
  return total > 0 ? rounded(Math.min(1, Math.max(0, (now.busy - then.busy) / total)), 3) : null
}

function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits))
}
