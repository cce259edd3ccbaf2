// A module worker of a page, for browser.test.ts: reads a buffer, or feeds one. It is told what to do by its first message.
import { createBroker } from '../../src/core/broker.ts'
import type { Batch } from '../../src/core/event.ts'
import { createSharedBuffer, openSharedBuffer, type SharedHandle } from '../../src/shared/index.ts'
import { cell } from '../../src/shared/layout.ts'

export type Work =
  /** Reads up to the end of the buffer, and says after each `step` batches how many it has. */
  | { readonly role: 'loop' | 'blocking'; readonly handle: SharedHandle; readonly step: number }
  /** Takes up a place, reads on when it is told to, and says what it got at the end. */
  | { readonly role: 'lagging'; readonly handle: SharedHandle }
  /** Publishes `count` batches when it is told to, and ends. */
  | { readonly role: 'writer'; readonly count: number }
  /** Closes a buffer of its own as soon as somebody waits for its bell; then another one when it is told to. */
  | { readonly role: 'ringer' }

/** What a reader tells when it has come to the end. */
export interface Seen {
  readonly indexes: readonly number[]
  readonly gaps: readonly NonNullable<Batch['gap']>[]
  readonly lost: number
  /** The code of the error that ended it. */
  readonly error: string | null
}

interface WorkerScope {
  onmessage: ((message: { data: unknown }) => void) | null
  postMessage(message: unknown): void
}
const scope = globalThis as unknown as WorkerScope

const told = () =>
  new Promise<unknown>((resolve) => {
    scope.onmessage = ({ data }) => resolve(data)
  })

// A worker has globals of its own.
if (new URL(import.meta.url).search === '?doorbell') delete (Atomics as { waitAsync?: unknown }).waitAsync

const work = (await told()) as Work
if (work.role === 'writer') await write(work.count)
else if (work.role === 'ringer') await ring()
else await read(work)

async function write(count: number): Promise<void> {
  const broker = createBroker()
  const buffer = createSharedBuffer()
  buffer.feed(broker)
  const start = told()
  scope.postMessage(buffer.handle)
  await start
  for (let n = 1; n <= count; n++) await broker.publish({ topic: 'T', type: 't', payload: n })
  buffer.close()
}

async function ring(): Promise<void> {
  for (;;) {
    const buffer = createSharedBuffer({ bytes: 2 ** 16 })
    const words = new Int32Array(buffer.handle.memory)
    const next = told()
    scope.postMessage(buffer.handle)
    while (Atomics.load(words, cell.bell) === 0);
    buffer.close()
    await next
  }
}

async function read(work: Exclude<Work, { role: 'writer' | 'ringer' }>): Promise<void> {
  const subscription = openSharedBuffer(work.handle).subscribe({ from: 'earliest', onLag: 'skip' })
  await subscription.ready
  const go = told()
  scope.postMessage(0)
  const seen = { indexes: [] as number[], gaps: [] as NonNullable<Batch['gap']>[], error: null as string | null }
  const take = ({ index, gap, events }: Batch) => {
    if (gap) seen.gaps.push(gap)
    else if (events[0]?.payload === index) seen.indexes.push(index)
    if (work.role !== 'lagging' && seen.indexes.length % work.step === 0) scope.postMessage(seen.indexes.length)
  }
  try {
    if (work.role === 'lagging') await go
    if (work.role === 'blocking') for (;;) take(subscription.nextSync() as Batch)
    for await (const batch of subscription) take(batch)
  } catch (error) {
    seen.error = (error as { code?: string }).code ?? String(error)
  }
  scope.postMessage({ ...seen, lost: subscription.lost })
}
