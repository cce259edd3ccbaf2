/** What a disk has done since it was attached. */
export interface DiskCounters {
  readonly reads: number
  readonly writes: number
  readonly readBytes: number
  readonly writtenBytes: number
}

/** What went through a network interface since it was created. */
export interface NetworkCounters {
  readonly rxBytes: number
  readonly txBytes: number
}

export interface ProcessInfo {
  readonly pid: number
  readonly name: string
  readonly parent: number
}

/** The kernel counts in sectors of this many bytes, whatever the device has. */
const sectorSize = 512
const pretendedDevices = /^(loop|ram)[0-9]/

/** Reads /proc/diskstats. Leaves out loop and RAM devices, which copy what others do, and those never used. */
export function parseDiskStats(text: string): Map<string, DiskCounters> {
  const disks = new Map<string, DiskCounters>()
  for (const fields of rows(text)) {
    const device = fields[2]
    const [reads, , readSectors, , writes, , writtenSectors] = fields.slice(3, 10).map(Number)
    if (device === undefined || pretendedDevices.test(device)) continue
    if (!isCount(reads) || !isCount(readSectors) || !isCount(writes) || !isCount(writtenSectors)) continue
    if (reads + writes === 0) continue
    const readBytes = readSectors * sectorSize
    const writtenBytes = writtenSectors * sectorSize
    disks.set(cleanName(device), { reads, writes, readBytes, writtenBytes })
  }
  return disks
}

/** Reads /proc/net/dev. Leaves out interfaces that nothing ever went through. */
export function parseNetDev(text: string): Map<string, NetworkCounters> {
  const interfaces = new Map<string, NetworkCounters>()
  for (const line of text.split('\n')) {
    // A name may hold a colon, as that of an alias does; the counters do not.
    const at = line.lastIndexOf(':')
    if (at < 0) continue
    const fields = line
      .slice(at + 1)
      .trim()
      .split(/\s+/)
    const [rxBytes, txBytes] = [Number(fields[0]), Number(fields[8])]
    if (!isCount(rxBytes) || !isCount(txBytes) || rxBytes + txBytes === 0) continue
    interfaces.set(cleanName(line.slice(0, at).trim()), { rxBytes, txBytes })
  }
  return interfaces
}

/** Reads /proc/<pid>/stat. `undefined` if it is not one. */
export function parseProcessStat(text: string): ProcessInfo | undefined {
  // A process chooses its name: it may hold spaces, line breaks and parentheses. The last one ends it.
  const [start, end] = [text.indexOf('('), text.lastIndexOf(')')]
  if (start < 0 || end < start) return undefined
  const pid = Number(text.slice(0, start).trim())
  const parent = Number(
    text
      .slice(end + 1)
      .trim()
      .split(' ')[1],
  )
  if (!Number.isInteger(pid) || !Number.isInteger(parent) || pid <= 0) return undefined
  return { pid, name: cleanName(text.slice(start + 1, end)), parent }
}

/** A name that an event may carry: users choose those of processes and interfaces, and may put anything into them. */
export function cleanName(name: string): string {
  // Cut first: half of a pair that was cut in two is a lone surrogate.
  return name.slice(0, 255).replace(/[\p{Cc}\p{Cs}]/gu, '\ufffd')
}

function* rows(text: string): Generator<string[]> {
  for (const line of text.split('\n')) if (line.trim() !== '') yield line.trim().split(/\s+/)
}

function isCount(value: number | undefined): value is number {
  return value !== undefined && Number.isFinite(value) && value >= 0
}
