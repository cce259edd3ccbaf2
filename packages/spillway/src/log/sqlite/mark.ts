import { closeSync, constants, existsSync, fsyncSync, openSync, readFileSync, readSync, writeSync } from 'node:fs'
import { crc32 } from 'node:zlib'

/** What was acknowledged last, as it stands beside the database. */
export interface Mark {
  readonly epoch: string
  readonly last: number
  readonly seq: number
  /** Whether the log was closed, and nothing can have been lost since. */
  readonly isClosed: boolean
  /** The run of the machine, `''` where it has none that can be told. */
  readonly boot: string
  readonly pid: number
}

const slotSize = 512

/**
 * A small file that remembers the newest acknowledged index outside of the database, whose own files may be cut short
 * without a trace: what it names and the database lacks was lost. It survives the end of the process; after a power cut it
 * may be older than the database, which then counts. Two slots are written in turn, so that one is always whole.
 */
export class MarkFile {
  readonly #file: number
  readonly #slot: Buffer = Buffer.alloc(slotSize)
  #turn = 0

  constructor(path: string) {
    this.#file = openSync(path, constants.O_RDWR | constants.O_CREAT)
  }

  read(): Mark | undefined {
    const newest = newestSlot(this.#file)
    if (newest) this.#turn = newest.turn
    return newest?.mark
  }

  write(mark: Mark): void {
    const turn = ++this.#turn
    const text = JSON.stringify({ turn, mark })
    this.#slot.fill(0x20)
    this.#slot.write(text, 8)
    this.#slot.writeUInt32LE(crc32(this.#slot.subarray(8)), 0)
    writeSync(this.#file, this.#slot, 0, slotSize, (turn % 2) * slotSize)
  }

  sync(): void {
    fsyncSync(this.#file)
  }

  close(): void {
    closeSync(this.#file)
  }
}

/** What stands in a file that may be another's, or not there. */
export function readMark(path: string): Mark | undefined {
  if (!existsSync(path)) return undefined
  const file = openSync(path, 'r')
  try {
    return newestSlot(file)?.mark
  } finally {
    closeSync(file)
  }
}

/** The newer of the slots that are whole. */
function newestSlot(file: number): { turn: number; mark: Mark } | undefined {
  let newest: { turn: number; mark: Mark } | undefined
  for (const position of [0, slotSize]) {
    const slot = Buffer.alloc(slotSize)
    readSync(file, slot, 0, slotSize, position)
    const found = parse(slot)
    if (found && found.turn >= (newest?.turn ?? 0)) newest = found
  }
  return newest
}

function parse(slot: Buffer): { turn: number; mark: Mark } | undefined {
  if (slot.readUInt32LE(0) !== crc32(slot.subarray(8))) return undefined
  try {
    return JSON.parse(slot.toString('utf8', 8))
  } catch {
    return undefined
  }
}

/** Tells one run of the machine from another, where the system has a name for it. */
export function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  } catch {
    return ''
  }
}
