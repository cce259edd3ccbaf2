import { integerOption, SpillwayError, wrongOption } from '../core/errors.ts'
import { type Memory, SharedMemory } from './memory.ts'

/*
 * The memory of a shared buffer: a ring of bytes, cut into pages, that one thread writes and any number of threads read.
 * All numbers are little-endian 32-bit words; the cells that threads contend for stand 128 bytes apart, since processors
 * fetch lines in pairs.
 *
 * Positions  count bytes from the ring's origin and never fall; in shared memory stand their low bits only. TAIL holds
 *            what is published, in units of 8 bytes. A page's number is its position divided by the size of a page.
 * Claim      Before the writer touches a byte or a table entry of a page it adds to INTENT, the highest claimed page. A
 *            page is overwritten only after the one that lies `pages` further on was claimed.
 * Validate   A reader copies a span, then adds 0 to INTENT. If no claim that ends its oldest page came before, it has
 *            the published bytes. It looks at nothing it copied before that.
 *            [ECMA-262, Memory Model] Both are read-modify-writes of one cell, which therefore form one chain in which
 *            each synchronizes with the next: copy -> validation -> claim -> overwriting is a happens-before, so the
 *            copy cannot have seen the overwriting. A load or a store on either side would break this: the axioms then
 *            allow new bytes to be seen and the validation to pass, as ARM64 does. test/shared/axioms.test.ts has the
 *            table. INTENT is never stored to; to load it is a hint.
 * Publish    Payloads, headers and entries are plain; one store of TAIL makes them visible to whoever loads it.
 * Wake       A reader that found nothing stores 1 to WAIT, then waits for TAIL to differ from what it saw before. The
 *            writer clears WAIT before it stores TAIL, and notifies after it if WAIT was set before or is set after.
 *            Readers without `Atomics.waitAsync` do the same with BELL, and load TAIL again instead of waiting.
 * Ending     Closing and errors are records: they move TAIL, so they wake everybody, and stand behind the last batch.
 * Wrap       INTENT wraps after 2^32 pages. EPOCH counts spans of 2^30 of them, and is stored before the claim that
 *            begins one, so that a reader that slept for any time knows how old its page is.
 * Bounds     A record takes an eighth of the ring at most, and what is not published as much before it is published:
 *            with the padding at the end of the ring, claims are never more than half of it ahead of TAIL.
 * Damage     Whoever writes into a ring that is not its own breaks what is read. Readers check what they would else loop
 *            over, and end with INTERNAL.
 *
 * A record starts at a multiple of 8 and does not wrap: where it does not fit, a pad fills the end of the ring. The last
 * word lies in one page.
 *   +0 bytes of the payload, of a pad its own size   +4 type, 16-bit tag of the topic
 *   +8 sequence, low and high   +16 index, low and high   +24 hash of the key   +28 number of events   +32 payload
 * A pad has only the first 8 bytes, since 8 may be all there is. Sequences count batches; another record has that of the
 * next batch, so they tell exactly how many were lost.
 *
 * A table entry tells of a page the first record that starts in it or after it: +0 its position, as in TAIL; +4 its
 * sequence; +12 the index of the batch before it. That index is known when the page is claimed, even where that record
 * is not written yet, and it is the floor of a reader that starts there.
 */

/** The header, by words: 32 of them are 128 bytes. */
export const cell = {
  magic: 0,
  version: 1,
  logCapacity: 2,
  logPage: 3,
  data: 4,
  table: 5,
  items: 6,
  /** Names the ring's doorbell. */
  id: 7,
  /** Number of the first page, low and high. */
  origin: 8,
  tail: 32,
  /** Low word of the newest sequence, then the newest index, low and high. Plain, stored before TAIL. */
  newest: 33,
  /** The newest index that is no longer kept in the log of which this is the news, as one 64-bit word; `Atomics` only. */
  floor: 40,
  wait: 64,
  bell: 65,
  intent: 96,
  epoch: 97,
  /** Length of the name of the history whose batches these are, then its ASCII. Plain, stored before the first record. */
  history: 128,
} as const

/** What a record says. */
export const recordType = { batch: 0, pad: 1, closed: 2, error: 3, gap: 4, open: 5, rights: 6 } as const

export type RecordType = (typeof recordType)[keyof typeof recordType]

export const headerBytes = 32
export const entryBytes = 32
const tableOffset = 0x280
const magic = 0x31575053 // SPW1
const version = 1
const pagesPerSpan = 2 ** 30
const maxHistory = 64

const leastCapacity = 2 ** 16
const mostCapacity = 2 ** 30
const pageBytes = 2 ** 14
const leastPages = 16
const defaultCapacity = 2 ** 22

/** Where things are in a ring. */
export interface Layout {
  /** Bytes of the ring, a power of two. */
  readonly capacity: number
  readonly logPage: number
  readonly page: number
  readonly pages: number
  /** Byte offsets of the ring and of the table. */
  readonly data: number
  readonly table: number
  /** How many batches are kept at the most. Infinity: as many as there is room for. */
  readonly items: number
  readonly origin: number
  readonly id: number
  /** Bytes of the largest record. */
  readonly largest: number
}

/** A ring and the way to its memory. */
export interface Ring {
  readonly memory: Memory
  readonly layout: Layout
}

/** What another thread needs to open a buffer: send it as `workerData` or in a message. */
export interface SharedHandle {
  readonly memory: SharedArrayBuffer
}

export interface RingOptions {
  /** Bytes of payloads and headers that are kept, 65,536 to 2^30; rounded up to a power of two. Default 4 MiB. */
  bytes?: number | undefined
  /** How many batches are kept at the most. 0, the default: as many as `bytes` has room for. */
  items?: number | undefined
}

/** Rings that are too small to be of use show every interleaving soonest: for tests. */
export interface TinyRing {
  capacity: number
  page: number
  items?: number
  /** Number of the first page. */
  origin?: number
}

/** Makes a ring. Throws `CONFIG` that names the option. */
export function createRing({ bytes = defaultCapacity, items = 0 }: RingOptions = {}): SharedHandle {
  const capacity = 2 ** Math.ceil(Math.log2(integerOption('bytes', bytes, leastCapacity, mostCapacity)))
  integerOption('items', items, 0, 2 ** 31 - 1)
  if (typeof SharedArrayBuffer === 'undefined') {
    throw new SpillwayError(
      'CONFIG',
      'This place has no SharedArrayBuffer. A page has it when it is served with Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp.',
    )
  }
  const page = Math.min(pageBytes, capacity / leastPages)
  const data = Math.ceil((tableOffset + (capacity / page) * entryBytes) / 4096) * 4096
  const memory = new SharedArrayBuffer(data + capacity)
  layOut(new Int32Array(memory), data, { capacity, page, items })
  return { memory }
}

/** Writes the header of an empty ring into zeros. */
export function layOut(words: Int32Array, data: number, { capacity, page, items = 0, origin = 0 }: TinyRing): void {
  words[cell.version] = version
  words[cell.logCapacity] = Math.log2(capacity)
  words[cell.logPage] = Math.log2(page)
  words[cell.data] = data
  words[cell.table] = tableOffset
  words[cell.items] = items
  words[cell.id] = Math.floor(Math.random() * 2 ** 32)
  words[cell.origin] = origin
  words[cell.origin + 1] = Math.floor(origin / 2 ** 32)
  words[cell.tail] = origin * (page / 8)
  words[cell.newest] = -1
  words[cell.intent] = origin - 1
  words[cell.epoch] = Math.max(0, Math.floor((origin - 1) / pagesPerSpan))
  Atomics.store(words, cell.magic, magic)
}

/** The bytes of a {@link TinyRing} before the first record. */
export function tinyRing(options: TinyRing): Int32Array {
  const data = tableOffset + (options.capacity / options.page) * entryBytes
  const words = new Int32Array((data + options.capacity) / 4)
  layOut(words, data, options)
  return words
}

/** Opens what `createRing` made, in any thread. Throws `CONFIG` that names what is wrong with the handle. */
export function openRing(handle: SharedHandle): Ring {
  const buffer: unknown = handle?.memory
  if (typeof SharedArrayBuffer === 'undefined' || !(buffer instanceof SharedArrayBuffer)) {
    throw wrongOption('handle.memory', 'the SharedArrayBuffer of a shared buffer', buffer)
  }
  const words = buffer.byteLength >= tableOffset ? new Int32Array(buffer, 0, tableOffset / 4) : new Int32Array(1)
  if (Atomics.load(words, 0) !== magic) {
    throw new SpillwayError('CONFIG', 'handle.memory is not the memory of a shared buffer.')
  }
  if (words[cell.version] !== version) {
    throw new SpillwayError(
      'CONFIG',
      `handle.memory has version ${words[cell.version]}, this Spillway opens ${version}. Let all threads load the same one.`,
    )
  }
  const layout = readLayout(words)
  const { capacity, page, pages, data, table } = layout
  if (capacity < leastCapacity || capacity > mostCapacity || page < 8 || table + pages * entryBytes > data) {
    throw new SpillwayError('CONFIG', 'The header of handle.memory was damaged.')
  }
  if (buffer.byteLength !== data + capacity) {
    throw new SpillwayError('CONFIG', `handle.memory must have ${data + capacity} bytes, got ${buffer.byteLength}.`)
  }
  return { memory: new SharedMemory(buffer), layout }
}

export function readLayout(words: Int32Array): Layout {
  const word = (at: number) => words[at] as number
  const capacity = 2 ** word(cell.logCapacity)
  const logPage = word(cell.logPage)
  const pages = capacity >>> logPage
  return {
    capacity,
    logPage,
    page: 2 ** logPage,
    pages,
    data: word(cell.data),
    table: word(cell.table),
    items: word(cell.items) || Number.POSITIVE_INFINITY,
    origin: wide(word(cell.origin), word(cell.origin + 1)),
    id: word(cell.id) >>> 0,
    // Only a ring of a test has fewer pages; a record may then take more of it.
    largest: pages < leastPages ? capacity / 4 : capacity / 8,
  }
}

/** The number whose low and high words these are. */
export function wide(low: number, high: number): number {
  return (low >>> 0) + high * 2 ** 32
}

/** The page whose low word was in INTENT before EPOCH was `epoch`. */
export function absolutePage(intent: number, epoch: number): number {
  const span = epoch >>> 0
  // EPOCH is stored before the claim that begins its span.
  const isAhead = (span & 3) !== intent >>> 30
  return (isAhead ? span - 1 : span) * pagesPerSpan + (intent & (pagesPerSpan - 1))
}

/** The first page of the span after the one that holds `page`. */
export function nextSpan(page: number): number {
  return (Math.floor(page / pagesPerSpan) + 1) * pagesPerSpan
}

/** What EPOCH holds while `page` is the highest claimed one. */
export function spanOf(page: number): number {
  return Math.floor(page / pagesPerSpan) | 0
}

/** The position whose low bits are in TAIL, near the page `claimed`. */
export function absolutePosition(tail: number, claimed: number, { logPage, page }: Layout): number {
  const unitBits = logPage - 3
  const ahead = (((tail >>> unitBits) - (claimed % 2 ** 32)) << unitBits) >> unitBits
  return (claimed + ahead) * page + (tail & (2 ** unitBits - 1)) * 8
}

/** The cell `floor` of a ring's memory. */
export function floorOf({ memory }: SharedHandle): BigInt64Array {
  return new BigInt64Array(memory, cell.floor * 4, 1)
}

/** Somebody wrote into a ring: `what` is wrong. */
export function damaged(what: string, cause?: unknown): SpillwayError {
  return new SpillwayError('INTERNAL', `The memory of the shared buffer was damaged: ${what} cannot be right.`, {
    cause,
  })
}

/** How much a record with a payload of `length` bytes takes. */
export function recordBytes(length: number): number {
  return headerBytes + ((length + 7) & -8)
}

/** Names the history of a ring. Call before the first record is published: whoever sees that one sees this. */
export function writeHistory({ memory }: Ring, epoch: string): void {
  const bytes = new Uint8Array(maxHistory)
  for (let i = 0; i < epoch.length; i++) bytes[i] = epoch.charCodeAt(i)
  memory.set(cell.history, epoch.length)
  memory.copyIn((cell.history + 1) * 4, bytes)
}

/** The history of a ring whose first record has been seen; `''` if it has none. */
export function readHistory({ memory }: Ring): string {
  const length = memory.get(cell.history)
  if (!(length >= 0 && length <= maxHistory)) throw damaged('the name of its history')
  const bytes = new Uint8Array(length)
  memory.copyOut((cell.history + 1) * 4, bytes)
  return String.fromCharCode(...bytes)
}
