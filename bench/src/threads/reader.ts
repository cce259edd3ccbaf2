import { BroadcastChannel, parentPort, workerData } from 'node:worker_threads'
import type { SharedHandle } from 'spillway/shared'
import { now } from './clock.ts'
import type { Account } from './contender.ts'
import { report } from './pacer.ts'
import { digit, type OrderEvent, payloadsOf, textsOf } from './payload.ts'

/** What a reader is to do, in a thread of its own. Its last message is an {@link Account}. */
export interface ReaderJob {
  readonly source:
    | { readonly kind: 'ring'; readonly handle: SharedHandle; readonly waits: 'blocking' | 'loop' }
    | { readonly kind: 'face'; readonly handle: SharedHandle; readonly waits: 'blocking' | 'loop' }
    | { readonly kind: 'port' }
    | { readonly kind: 'channel'; readonly name: string }
  readonly reader: number
  readonly sizes: readonly number[]
  readonly thorough: boolean
  readonly progress: Int32Array
  /** When each record was written, in microseconds; the reader puts the delay in its place. Empty: nobody wants to know. */
  readonly times: Float64Array
}

/** Spans of a ring that are read in one turn of the event loop. */
const perTurn = 16

const { source, reader: me, sizes, thorough, progress, times } = workerData as ReaderJob
const payloads = payloadsOf(sizes)
const mask = sizes.length - 1

class Tally {
  got = 0
  #wrong = 0

  count(isRight: boolean): void {
    if (this.got < times.length) times[this.got] = now() - (times[this.got] as number)
    this.got++
    if (!isRight) this.#wrong++
  }

  finish(lost: number): void {
    report(progress, me, this.got + lost)
    const account: Account = { got: this.got, lost, wrong: this.#wrong }
    parentPort?.postMessage(account)
  }
}

const tally = new Tally()

if (source.kind === 'ring') await readRing(source.handle, source.waits)
else if (source.kind === 'face') await readFace(source.handle, source.waits)
else if (source.kind === 'port') parentPort?.on('message', takerOfMessages())
else readChannel(source.name)
parentPort?.postMessage('ready')

async function readRing(handle: SharedHandle, waits: 'blocking' | 'loop'): Promise<void> {
  const { layout, newReader } = await import('./ring.ts')
  const { headerBytes, recordBytes, recordType } = layout
  const recordSizes = sizes.map(recordBytes)
  const { reader, ...wait } = await newReader(handle, wake)
  // Waiting for shared memory does not keep a thread.
  const alive = setInterval(() => {}, 2 ** 30)

  function drain(most: number): 'empty' | 'tired' | 'ended' {
    for (let spans = 0; spans < most; spans++) {
      const span = reader.read()
      if (!span) return 'empty'
      reader.tell()
      for (let at = reader.position - span.position; at < span.end; at = reader.position - span.position) {
        const type = span.typeAt(at)
        if (type === recordType.closed) return 'ended'
        if (type === recordType.batch) {
          const seq = span.seqAt(at)
          const number = seq & mask
          tally.count(
            seq === tally.got + reader.lost &&
              span.sizeAt(at) === recordSizes[number] &&
              span.bytes[at + headerBytes] === digit(number) &&
              (!thorough || Buffer.compare(span.payloadAt(at), payloads[number] as Uint8Array) === 0),
          )
        }
        reader.pass(span, at)
      }
      report(progress, me, tally.got + reader.lost)
    }
    return 'tired'
  }

  function wake(): void {
    const state = drain(perTurn)
    if (state === 'empty') wait.await()
    else if (state === 'tired') setImmediate(wake)
    else finish()
  }

  function finish(): void {
    clearInterval(alive)
    tally.finish(reader.lost)
  }

  function readBlocking(): void {
    while (drain(Number.POSITIVE_INFINITY) === 'empty') wait.block()
    finish()
  }

  // In a later turn: that it is ready has to be said first.
  setImmediate(waits === 'loop' ? wake : readBlocking)
}

/** As users read. Its end is that of the broker. */
async function readFace(handle: SharedHandle, waits: 'blocking' | 'loop'): Promise<void> {
  const { openSharedBuffer } = await import('spillway/shared')
  const subscription = openSharedBuffer(handle).subscribe({ from: 'earliest', onLag: 'skip' })
  const isRight = check()

  async function readAll(): Promise<void> {
    try {
      for (;;) {
        const batch = waits === 'blocking' ? subscription.nextSync() : await subscription.next()
        const [event] = batch?.events ?? []
        if (!batch || !event) continue
        const n = tally.got + subscription.lost
        tally.count(batch.index === n + 1 && isRight(n & mask, event.payload))
        if ((n & 15) === 0) report(progress, me, n)
      }
    } catch (error) {
      if ((error as { code?: string }).code !== 'SHUTDOWN') throw error
      tally.finish(subscription.lost)
    }
  }

  setImmediate(readAll)
}

function readChannel(name: string): void {
  const channel = new BroadcastChannel(name)
  const take = takerOfMessages()
  channel.onmessage = (event) => {
    const { data } = event as { data: string | null }
    take(data)
    if (data === null) channel.close()
  }
}

/** Takes strings, or events with strings in them; `null` is the last message. */
function takerOfMessages(): (message: string | OrderEvent | null) => void {
  const isRight = check()
  return (message) => {
    if (message === null) {
      tally.finish(0)
      parentPort?.close()
      return
    }
    tally.count(isRight(tally.got & mask, typeof message === 'string' ? message : message.payload))
    if ((tally.got & 15) === 0) report(progress, me, tally.got)
  }
}

/** Whether a text is that of a number. */
function check(): (number: number, text: unknown) => boolean {
  const texts = textsOf(payloads)
  return (number, text) => {
    const wanted = texts[number] as string
    if (typeof text !== 'string' || text.length !== wanted.length || text.charCodeAt(0) !== digit(number)) return false
    return !thorough || text === wanted
  }
}
