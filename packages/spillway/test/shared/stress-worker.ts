import { parentPort, workerData } from 'node:worker_threads'
import { absolutePage, cell, openRing, type Ring, recordType, type SharedHandle } from '../../src/shared/layout.ts'
import { newestPlace, RingReader } from '../../src/shared/reader.ts'
import { KeepAlive } from '../../src/shared/runtime.ts'
import { type Span, SpanReader } from '../../src/shared/span.ts'
import { Alarm, sleep } from '../../src/shared/wait.ts'
import { RingWriter } from '../../src/shared/writer.ts'

export interface Job {
  readonly handle: SharedHandle
  readonly role: 'write' | Kind
  readonly records: number
  readonly seed: number
}

/** How a reader waits. A slow one does other work between its copies, for longer than the writer takes to come around. */
export type Kind = 'blocking' | 'slow' | 'loop'

export interface Account {
  readonly got: number
  readonly lost: number
  readonly torn: number
  /** How many times it was told of a loss. */
  readonly losses: number
}

const { handle, role, records, seed } = workerData as Job
const ring = openRing(handle)
const { largest } = ring.layout
const first = { position: 0, seq: 0, index: 0 }

/** 32 bits that a seed, a record and a place in it give, each time the same. */
function mix(seq: number, at: number): number {
  let bits = Math.imul(seed ^ seq, 0x9e3779b1) ^ Math.imul(at + 1, 0x85ebca6b)
  bits = Math.imul(bits ^ (bits >>> 15), 0x2c1b3c6d)
  return bits ^ (bits >>> 13)
}

/** Mostly short; one in 4,096 takes up to an eighth of the ring. */
function lengthOf(seq: number): number {
  const bits = mix(seq, -2) >>> 0
  return (bits & 0xfff) === 0 ? (bits >>> 12) % (largest - 31) : (bits >>> 12) % 200
}

/** A payload is a piece of these, from where {@link startOf} says: records that stand at one place in turn share no word. */
const starts = 4096
const words = Int32Array.from({ length: starts + largest / 4 }, (_, at) => mix(0, at))
const bytes = new Uint8Array(words.buffer)

function startOf(seq: number): number {
  return (mix(seq, -4) >>> 0) % starts
}

function write(to: Ring): void {
  // The writer never waits: it could not.
  const never = () => {
    throw new Error('The writer waits.')
  }
  Object.assign(Atomics, { wait: never, waitAsync: never })
  parentPort?.once('message', () => {
    // The next one where an earlier writer was killed, be it in the middle of a record.
    const place = newestPlace(to)
    const { memory } = to
    const writer = new RingWriter(to, place, absolutePage(memory.load(cell.intent), memory.load(cell.epoch)))
    writer.takeOver()
    for (let { seq } = place; seq < records; seq++) {
      const from = startOf(seq) * 4
      writer.append(
        bytes.subarray(from, from + lengthOf(seq)),
        seq + 1,
        recordType.batch,
        seq & 0xffff,
        mix(seq, -1),
        1,
      )
      if ((mix(seq, -3) & 15) === 0) writer.publish()
    }
    writer.append(bytes.subarray(0, 0), records, recordType.closed, 0, 0, 0)
    writer.publish()
  })
  parentPort?.postMessage('ready')
}

function isWhole(span: Span, at: number): boolean {
  const seq = span.seqAt(at)
  const payload = span.payloadAt(at)
  if (payload.length !== lengthOf(seq) || span.indexAt(at) !== seq + 1) return false
  if (span.tagAt(at) !== (seq & 0xffff) || span.keyAt(at) !== mix(seq, -1)) return false
  const start = startOf(seq)
  const got = new Int32Array(span.bytes.buffer, payload.byteOffset, payload.length >>> 2)
  for (let word = 0; word < got.length; word++) if (got[word] !== words[start + word]) return false
  for (let byte = got.length * 4; byte < payload.length; byte++) {
    if (payload[byte] !== bytes[start * 4 + byte]) return false
  }
  return true
}

/** One reader, and what it has come to. */
class Stressed {
  readonly reader: RingReader
  readonly #isSlow: boolean
  #got = 0
  #torn = 0
  #losses = 0

  constructor(from: Ring, isSlow: boolean) {
    this.reader = new RingReader(from, first, new SpanReader(from, undefined, true))
    this.#isSlow = isSlow
  }

  get account(): Account {
    return { got: this.#got, torn: this.#torn, losses: this.#losses, lost: this.reader.lost }
  }

  /** Reads all there is; answers whether that was the end. */
  drain(): boolean {
    const { reader } = this
    for (let span = reader.read(); span; span = reader.read()) {
      if (reader.loss) this.#losses++
      reader.tell()
      if (this.#check(span)) return true
      if (this.#isSlow) for (let n = 0; n < 200_000; n++) mix(n, n)
    }
    return false
  }

  #check(span: Span): boolean {
    const { reader } = this
    for (let at = reader.position - span.position; at < span.end; at = reader.position - span.position) {
      const type = span.typeAt(at)
      if (type === recordType.closed) return true
      if (type === recordType.batch) {
        if (span.seqAt(at) !== this.#got + reader.lost || !isWhole(span, at)) this.#torn++
        this.#got++
      }
      reader.pass(span, at)
    }
    return false
  }
}

function read(from: Ring, kind: Kind): void {
  const stressed = new Stressed(from, kind === 'slow')

  function finish(): void {
    parentPort?.postMessage(stressed.account)
  }

  parentPort?.postMessage('ready')
  if (kind !== 'loop') {
    while (!stressed.drain()) sleep(from.memory, stressed.reader.tail, Number.POSITIVE_INFINITY)
    finish()
    return
  }
  const alive = new KeepAlive()
  alive.hold()
  const alarm = new Alarm(from.memory, from.layout, wake)
  function wake(): void {
    if (!stressed.drain()) {
      alarm.set(stressed.reader.tail)
      return
    }
    alive.release()
    finish()
  }
  wake()
}

if (role === 'write') write(ring)
else read(ring, role)
