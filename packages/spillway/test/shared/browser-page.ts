// What a page does in browser.test.ts.
import { createBroker } from '../../src/core/broker.ts'
import { createSharedBuffer, openSharedBuffer, type SharedBuffer, type SharedHandle } from '../../src/shared/index.ts'
import type { Seen, Work } from './browser-worker.ts'

interface PageWorker {
  onmessage: ((message: { data: unknown }) => void) | null
  onerror: ((event: { message?: string }) => void) | null
  postMessage(message: unknown): void
}
const { Worker } = globalThis as unknown as { Worker: new (url: URL, options: { type: 'module' }) => PageWorker }

/** A worker that has its work, and what it says, in order. */
function employ(work: Work): { next(): Promise<unknown>; tell(message: unknown): void } {
  const search = 'waitAsync' in Atomics ? '' : '?doorbell'
  const worker = new Worker(new URL(`browser-worker.js${search}`, import.meta.url), { type: 'module' })
  const said: unknown[] = []
  let hear: (() => void) | undefined
  let failed: Error | undefined
  worker.onmessage = ({ data }) => {
    said.push(data)
    hear?.()
  }
  worker.onerror = ({ message }) => {
    failed = new Error(`The worker failed: ${message}`)
    hear?.()
  }
  worker.postMessage(work)
  return {
    next: async () => {
      while (said.length === 0 && !failed) {
        await new Promise<void>((resolve) => {
          hear = resolve
        })
      }
      if (failed) throw failed
      return said.shift()
    },
    tell: (message) => worker.postMessage(message),
  }
}

function feed(bytes: number): { buffer: SharedBuffer; publish(from: number, upTo: number): Promise<void> } {
  const broker = createBroker()
  const buffer = createSharedBuffer({ bytes })
  buffer.feed(broker)
  const publish = async (from: number, upTo: number) => {
    for (let n = from; n <= upTo; n++) await broker.publish({ topic: 'T', type: 't', payload: n })
  }
  return { buffer, publish }
}

/** Two workers follow what the page publishes; after each `step` it waits until both have got there. */
export async function pageToWorkers(rounds: number, step: number, roles: ('loop' | 'blocking')[]): Promise<Seen[]> {
  const { buffer, publish } = feed(2 ** 20)
  const { handle } = buffer
  const readers = roles.map((role) => employ({ role, handle, step }))
  for (const reader of readers) await reader.next()
  for (let round = 1; round <= rounds; round++) {
    await publish((round - 1) * step + 1, round * step)
    for (const reader of readers) while (((await reader.next()) as number) < round * step);
  }
  buffer.close()
  return Promise.all(readers.map((reader) => reader.next() as Promise<Seen>))
}

/** A worker does not read until the page has published more than the buffer holds. */
export async function lapped(count: number): Promise<Seen> {
  const { buffer, publish } = feed(2 ** 16)
  const reader = employ({ role: 'lagging', handle: buffer.handle })
  await reader.next()
  await publish(1, count)
  buffer.close()
  reader.tell('go')
  return (await reader.next()) as Seen
}

/** The page reads what a worker publishes. */
export async function workerToPage(count: number): Promise<number[]> {
  const writer = employ({ role: 'writer', count })
  const subscription = openSharedBuffer((await writer.next()) as SharedHandle).subscribe({ from: 'earliest' })
  await subscription.ready
  writer.tell('go')
  const payloads: number[] = []
  for await (const { events } of subscription) payloads.push(events[0]?.payload as number)
  return payloads
}

/** How many buffers the page saw end, each of which a worker closed as soon as the page waited for it. */
export async function rungAtOnce(rounds: number): Promise<number> {
  const ringer = employ({ role: 'ringer' })
  for (let round = 1; round <= rounds; round++) {
    const subscription = openSharedBuffer((await ringer.next()) as SharedHandle).subscribe()
    await subscription.next().catch(() => {})
    if (!subscription.closed) return round
    ringer.tell('next')
  }
  return rounds
}

/** What a page is told that wants to block. */
export async function blockingPage(): Promise<{ code: string; message: string }> {
  const { buffer } = feed(2 ** 16)
  const subscription = openSharedBuffer(buffer.handle).subscribe()
  try {
    subscription.nextSync({ timeout: 10 })
    throw new Error('It blocked.')
  } catch (error) {
    // An error would come to the test without its code.
    const { code, message } = error as { code: string; message: string }
    return { code, message }
  } finally {
    buffer.close()
  }
}
