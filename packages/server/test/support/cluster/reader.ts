import { setTimeout } from 'node:timers/promises'
import { type Batch, createClient } from 'spillway/client'
import type { ReaderRecord } from './observations.ts'
import type { Server } from './server.ts'

/** One that follows the log from its beginning, at one server after the other, and writes down what it receives. */
export interface Reader {
  readonly record: ReaderRecord
  /** Makes it leave its server and go on at the next. */
  hop(): void
}

export interface ReaderOptions {
  readonly record: ReaderRecord
  readonly servers: readonly Server[]
  /** Which server it begins with. */
  readonly first: number
  readonly signal: AbortSignal
  /** Told of what ends it. */
  readonly onFailure: (error: unknown) => void
}

/** What the servers are given as `--heartbeat`, in milliseconds. */
export const heartbeat = 1000

const pauseAfterLossMs = 20

/** Reads lines of JSON, with nothing of ours between the socket and the record. */
export function followLines({ record, servers, first, signal, onFailure }: ReaderOptions): Reader {
  let turn = first
  let cursor = 'earliest'
  let connection = new AbortController()
  const readOne = async () => {
    connection = new AbortController()
    const url = `${servers[turn++ % servers.length]?.url}/v1/events?from=${cursor}`
    const silence = silenceOf(connection)
    try {
      const response = await fetch(url, {
        headers: { accept: 'application/x-ndjson' },
        signal: AbortSignal.any([signal, connection.signal]),
      })
      if (response.status >= 500) return
      if (!response.ok || !response.body) throw new Failure(`${url}: ${response.status} ${await response.text()}`)
      for await (const line of linesOf(response.body)) {
        silence.broken()
        cursor = takeLine(record, line) ?? cursor
      }
    } catch (error) {
      if (error instanceof Failure) throw error
      // The server went, or this reader left it.
    } finally {
      silence.end()
    }
  }
  const run = async () => {
    while (!signal.aborted) {
      await readOne()
      if (!signal.aborted) await setTimeout(pauseAfterLossMs)
    }
  }
  run().catch(onFailure)
  return { record, hop: () => connection.abort() }
}

/** Reads with `spillway/client`. Each of its connections goes to the next server, as a load balancer may have it. */
export function followWithClient({ record, servers, first, signal, onFailure }: ReaderOptions): Reader {
  let turn = first
  let connection = new AbortController()
  const nextServer = async (url: string, init: { signal: AbortSignal }): Promise<Response> => {
    const { pathname, search } = new URL(url)
    connection = new AbortController()
    const either = AbortSignal.any([init.signal, connection.signal])
    return fetch(`${servers[turn++ % servers.length]?.url}${pathname}${search}`, { ...init, signal: either })
  }
  // A name that only `nextServer` gives a meaning to.
  const client = createClient({
    url: 'http://cluster',
    heartbeat,
    firstWait: pauseAfterLossMs,
    fetch: nextServer as never,
  })
  const run = async () => {
    for await (const batch of client.subscribe({ from: 'earliest', signal })) take(record, batch)
  }
  run().catch((error) => {
    if (!signal.aborted) onFailure(error)
  })
  return { record, hop: () => connection.abort() }
}

class Failure extends Error {}

function take(record: ReaderRecord, { index, events, gap, cursor }: Batch): void {
  if (gap?.reason === 'epoch') record.reset(`${JSON.stringify(gap)}, now ${cursor}`)
  else if (gap) record.gap(gap.after, gap.before)
  else record.batch(index, ...contentOf(events))
}

interface Line {
  readonly index?: number
  readonly cursor?: string
  readonly events?: readonly { readonly payload: unknown }[]
  readonly open?: { readonly cursor: string }
  readonly gap?: { readonly after: number; readonly before: number; readonly cursor: string }
  readonly reset?: { readonly cursor: string }
  readonly progress?: { readonly cursor: string }
  readonly closed?: { readonly cursor: string }
}

/** Writes down what a line says, and gives the cursor that it has. */
function takeLine(record: ReaderRecord, text: string): string | undefined {
  const line = JSON.parse(text) as Line
  if (line.events) record.batch(line.index ?? Number.NaN, ...contentOf(line.events))
  if (line.gap) record.gap(line.gap.after, line.gap.before)
  if (line.reset) record.reset(text)
  return line.cursor ?? (line.open ?? line.gap ?? line.reset ?? line.progress ?? line.closed)?.cursor
}

function contentOf(events: readonly { readonly payload: unknown }[]): [id: string, content: string] {
  const payloads = events.map(({ payload }) => payload)
  return [(payloads[0] as { id: string }).id, JSON.stringify(payloads)]
}

async function* linesOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = ''
  for await (const text of body.pipeThrough(new TextDecoderStream() as never) as ReadableStream<string>) {
    const lines = (rest + text).split('\n')
    rest = lines.pop() ?? ''
    yield* lines
  }
}

/** Ends a connection that says nothing for two and a half heartbeats. */
function silenceOf(connection: AbortController) {
  const timer = globalThis.setTimeout(() => connection.abort(), heartbeat * 2.5)
  return { broken: () => timer.refresh(), end: () => clearTimeout(timer) }
}
