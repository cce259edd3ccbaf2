import type { TestContext } from 'node:test'
import { type NatsServer, type NatsServerOptions, natsPrograms, startNats } from '@spillway/engines'
import { Recorder } from './recorder.ts'

/** Why tests with the engine are skipped; `false` where they run. */
export const noNats: string | false = natsPrograms().length > 0 ? false : 'there is no nats-server'

/** A nats-server that goes with its test. */
export async function nats(t: TestContext, options: NatsServerOptions = {}): Promise<NatsServer> {
  const server = await startNats(options)
  t.after(() => server.remove())
  return server
}

/** A message of a stream of `GET /v1/events`. */
export interface Message {
  readonly index?: number
  readonly events?: readonly { readonly key: string }[]
  readonly open?: { readonly cursor: string }
  readonly gap?: object
  readonly reset?: { readonly after: number; readonly before: number }
  readonly closed?: { readonly code: string; readonly cursor: string }
  readonly progress?: { readonly cursor: string }
  /** The stream has ended. */
  readonly over?: true
}

/** Follows a server over HTTP; what it sends can be waited for. */
export async function follow(
  t: TestContext,
  url: string,
  query = 'from=earliest',
  headers: Record<string, string> = {},
): Promise<Recorder<Message>> {
  const ending = new AbortController()
  t.after(() => ending.abort())
  const response = await fetch(`${url}/v1/events?${query}`, {
    headers: { accept: 'application/x-ndjson', ...headers },
    signal: ending.signal,
  })
  const messages = new Recorder<Message>()
  if (!response.body) throw new Error(`The answer ${response.status} has no body.`)
  void read(response.body, messages)
  return messages
}

async function read(body: ReadableStream<Uint8Array>, messages: Recorder<Message>): Promise<void> {
  const decoder = new TextDecoder()
  let text = ''
  try {
    for await (const bytes of body) {
      text += decoder.decode(bytes, { stream: true })
      const lines = text.split('\n')
      text = lines.pop() ?? ''
      for (const line of lines) messages.add(JSON.parse(line))
    }
  } catch {
    // It was cut.
  }
  messages.add({ over: true })
}

/** The keys of the events that have come, in order. */
export function keysOf({ items }: Recorder<Message>): string[] {
  return items.flatMap(({ events = [] }) => events.map(({ key }) => key))
}

/** What a publish was answered. */
export interface Answer {
  readonly status: number
  readonly retryAfter: string | null
  readonly index?: number
  readonly cursor?: string
  readonly duplicate?: boolean
  readonly code?: string
  readonly detail?: string
}

/** Publishes one event about `key`. */
export async function post(
  url: string,
  key: string,
  { query = '', headers = {} }: { query?: string; headers?: Record<string, string> } = {},
): Promise<Answer> {
  const response = await fetch(`${url}/v1/events${query}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ topic: 'Order', type: 'OrderPlaced', key }),
  })
  const { status } = response
  return { ...((await response.json()) as object), status, retryAfter: response.headers.get('retry-after') }
}

/** Asks again until `passes`, for as long as the test lives. */
export async function until(passes: () => Promise<boolean>): Promise<void> {
  while (!(await passes().catch(() => false))) await new Promise((resolve) => setTimeout(resolve, 20))
}
