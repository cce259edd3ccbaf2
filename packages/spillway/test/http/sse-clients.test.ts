// The event stream as clients of other people follow it, unchanged: what they see, and where they go on after a cut.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createSseStream } from '@azure/core-sse'
import { EventSource as NpmEventSource } from 'eventsource'
import { createEventSource } from 'eventsource-client'
import { EventSource as UndiciEventSource } from 'undici'
import { publishIndexes, type Site, serve, until } from '../support/http.ts'

interface Seen {
  readonly id: string
  readonly index: number
}

type Follow = (url: string, see: (seen: Seen) => void) => () => void

const indexOf = (data: string): number => (JSON.parse(data) as { index: number }).index

interface Listenable {
  onmessage: ((event: { data: string; lastEventId: string }) => void) | null
  close(): void
}

function eventSource(make: (url: string) => Listenable): Follow {
  return (url, see) => {
    const source = make(url)
    source.onmessage = ({ data, lastEventId }) => see({ id: lastEventId, index: indexOf(data) })
    return () => source.close()
  }
}

/** It reads one response; coming back with the last id is its user's part. */
const azure: Follow = (url, see) => {
  const controller = new AbortController()
  const run = async () => {
    let id = ''
    while (!controller.signal.aborted) {
      try {
        const headers: Record<string, string> = id === '' ? {} : { 'last-event-id': id }
        const { body } = await fetch(url, { headers, signal: controller.signal })
        for await (const message of createSseStream(body as ReadableStream<Uint8Array>)) {
          if (message.id) id = message.id
          if (message.data) see({ id, index: indexOf(message.data) })
        }
      } catch {
        await new Promise((resolve) => setImmediate(resolve))
      }
    }
  }
  void run()
  return () => controller.abort()
}

const clients: Readonly<Record<string, Follow>> = {
  eventsource: eventSource((url) => new NpmEventSource(url) as Listenable),
  undici: eventSource((url) => new UndiciEventSource(url) as unknown as Listenable),
  'eventsource-client': (url, see) => {
    const onMessage = ({ data, id = '' }: { data: string; id?: string | undefined }) =>
      see({ id, index: indexOf(data) })
    const source = createEventSource({ url, onMessage })
    return () => source.close()
  },
  '@azure/core-sse': azure,
}

for (const [name, follow] of Object.entries(clients)) {
  test(`${name} gets each batch once, also across connections that are cut`, async (t) => {
    const site = await serve(t, { handler: { retry: 10 } })
    await publishIndexes(site.broker, 1, 5)
    const seen: Seen[] = []
    t.after(follow(`${site.url}/v1/events?from=earliest`, (each) => seen.push(each)))
    await arrived(seen, 5)
    for (let round = 1; round <= 3; round++) {
      cut(site)
      await publishIndexes(site.broker, 5 * round + 1, 5 * round + 5)
      await arrived(seen, 5 * round + 5)
    }
    assert.deepEqual(
      seen,
      Array.from({ length: 20 }, (_, n) => ({ id: `${site.broker.status.epoch}:${n + 1}`, index: n + 1 })),
    )
  })
}

function arrived(seen: readonly Seen[], count: number): Promise<void> {
  return until(
    () => seen.length >= count,
    () => `${count} batches, got ${seen.length}`,
  )
}

function cut(site: Site): void {
  for (const { response } of site.exchanges) response.socket?.destroy()
}
