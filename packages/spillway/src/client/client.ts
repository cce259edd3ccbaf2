import type { PublishOptions } from '../core/broker.ts'
import { parseCursor } from '../core/cursor.ts'
import { integerOption, invalid, SpillwayError, shown, wrongOption } from '../core/errors.ts'
import { type EventInput, type EventOf, type InputOf, JsonText, type TopicMap } from '../core/event.ts'
import type { FilterOptions } from '../core/filter.ts'
import type { Signal } from '../core/signal.ts'
import type { Subscription } from '../core/subscription.ts'
import { asRefusal, limitedText, openFetch, Refusal, refusal } from './connection.ts'
import { type ClientWebSocket, type Credentials, type Fetch, host, randomId } from './runtime.ts'
import { firstWithin, SilenceLimit } from './silence.ts'
import { openSocket } from './socket.ts'
import { RemoteSubscription, type Status } from './subscription.ts'

export type { Status }

/**
 * What carries a stream: lines of JSON or Server-Sent Events over `fetch`, or a WebSocket. `auto` takes the lines, and a
 * WebSocket where `fetch` gives no streams, as in React Native.
 */
export type Transport = 'auto' | 'ndjson' | 'sse' | 'websocket'

/** Headers of a request, or what gives them: it is asked again for every attempt, so that a token may be renewed. */
export type ClientHeaders =
  | Readonly<Record<string, string>>
  | (() => Readonly<Record<string, string>> | Promise<Readonly<Record<string, string>>>)

export interface ClientOptions {
  /** Where the server is: the part before `/v1/events`. In a browser it may be relative to the page. */
  url: string | { readonly href: string }
  /** Sent with every request. Never sent on to where a server redirects: that ends the subscription with `CONFIG`. */
  headers?: ClientHeaders | undefined
  /** When a browser sends cookies along. Default `same-origin`. */
  credentials?: Credentials | undefined
  /** Default `auto`. */
  transport?: Transport | undefined
  /**
   * The server's heartbeat in milliseconds: after two and a half of them in silence a connection counts as lost. Default
   * 15,000, which is the server's own default and enough for the longest that it takes.
   */
  heartbeat?: number | undefined
  /**
   * Milliseconds over which the first attempts to come back are spread by chance, so that the readers of a server that
   * went away do not return all at once. Doubled with each attempt, up to 30,000. Default 3,000.
   */
  firstWait?: number | undefined
  /** UTF-16 units that one message of a stream may have; a longer one ends the subscription with `TOO_LARGE`. Default 67,108,864. */
  maxMessage?: number | undefined
  /** Milliseconds for which a publish is repeated until there is an answer. Default 30,000. */
  publishTimeout?: number | undefined
  /** Default: the runtime's own. */
  fetch?: Fetch | undefined
  /** For the transport `websocket`. Default: the runtime's own, which Node has from version 22 on; or that of the package `ws`. */
  WebSocket?: ClientWebSocket | undefined
}

/** Where a subscription starts. `{ since }`: the first batch published at or after a time, in Unix milliseconds. */
export type ClientFrom =
  | 'latest'
  | 'earliest'
  | (string & {})
  | { readonly since: number }
  /** The newest so many batches. */
  | { readonly last: number }

export interface ClientSubscribeOptions extends Pick<FilterOptions, 'topics' | 'namespaces'> {
  /** An expression that the server evaluates for each event, where it takes some: see docs/filters.md. Default: none. */
  filter?: string | undefined
  /** `latest`, the default, `earliest`, a cursor, a time or a number of batches. */
  from?: ClientFrom | undefined
  /** Rejects with `NOT_KEPT` instead of starting with a gap. Counts only at the start. */
  exact?: boolean | undefined
  /** `skip`, the default: a loss is told as a batch with a `gap`, and the stream goes on. `fail`: it rejects with `LAGGED`. */
  onLag?: 'fail' | 'skip' | undefined
  /** Ends the subscription; a waiting `next` rejects with its reason. */
  signal?: Signal | undefined
  /** Told of every change of the connection. */
  onStatus?: ((status: Status) => void) | undefined
}

export interface ClientPublishOptions extends PublishOptions {
  /** An index above the newest. Default: the next. */
  index?: number | undefined
  signal?: Signal | undefined
}

/** A reader and publisher of a Spillway server. */
export interface Client<Topics extends object = TopicMap> {
  /**
   * Follows the server's stream. The subscription is that of a broker: it also resumes by itself, so each batch arrives
   * once, and losses are told. Throws `INVALID` for bad options; `next` and `ready` reject with what ended it.
   */
  subscribe<Wanted extends (keyof Topics & string) | '*' = '*'>(
    options?: Omit<ClientSubscribeOptions, 'topics'> & {
      topics?: { readonly [Topic in Wanted]: readonly string[] } | undefined
    },
  ): Subscription<EventOf<'*' extends Wanted ? Topics : Pick<Topics, Wanted & keyof Topics>>>
  /**
   * Publishes events under one index and resolves with it. Without an answer it asks again with the same `id`, so that the
   * events are stored once. Rejects with what the server refused, or after `publishTimeout` with `UNREACHABLE` or the last
   * refusal: then they may have been stored, and a repetition with the same `id` tells.
   */
  publish(events: InputOf<Topics> | readonly InputOf<Topics>[], options?: ClientPublishOptions): Promise<number>
}

/** Throws `CONFIG` that names the option. */
export function createClient<Topics extends object = TopicMap>(options: ClientOptions): Client<Topics> {
  // The topics exist only in the types.
  return new HttpClient(options) as unknown as Client<Topics>
}

const longestWait = 30_000
const firstPublishWait = 500

class HttpClient {
  readonly #base: string
  readonly #headers: ClientHeaders
  readonly #credentials: Credentials
  readonly #transport: 'ndjson' | 'sse' | 'websocket'
  readonly #WebSocket: ClientWebSocket | undefined
  readonly #silence: number
  readonly #firstWait: number
  readonly #maxMessage: number
  readonly #publishTimeout: number
  readonly #fetch: Fetch

  constructor({
    url,
    headers = {},
    credentials = 'same-origin',
    transport = 'auto',
    heartbeat,
    firstWait,
    maxMessage,
    publishTimeout,
    fetch = host.fetch as Fetch | undefined,
    WebSocket = host.WebSocket as ClientWebSocket | undefined,
  }: ClientOptions) {
    this.#base = baseOf(url)
    if (typeof headers !== 'function' && (typeof headers !== 'object' || headers === null)) {
      throw wrongOption('headers', 'an object or a function', headers)
    }
    if (!['omit', 'same-origin', 'include'].includes(credentials)) {
      throw wrongOption('credentials', '"omit", "same-origin" or "include"', credentials)
    }
    if (!['auto', 'ndjson', 'sse', 'websocket'].includes(transport)) {
      throw wrongOption('transport', '"auto", "ndjson", "sse" or "websocket"', transport)
    }
    if (transport === 'websocket' && typeof WebSocket !== 'function') {
      throw wrongOption('WebSocket', 'a class, as this runtime has none of its own', WebSocket)
    }
    if (typeof fetch !== 'function')
      throw wrongOption('fetch', 'a function, as this runtime has none of its own', fetch)
    this.#headers = headers
    this.#credentials = credentials
    this.#transport = transport === 'auto' ? (host.ReadableStream ? 'ndjson' : 'websocket') : transport
    this.#WebSocket = WebSocket
    this.#silence = 2.5 * integerOption('heartbeat', heartbeat ?? 15_000, 1, 2 ** 28)
    this.#firstWait = integerOption('firstWait', firstWait ?? 3000, 1, longestWait)
    this.#maxMessage = integerOption('maxMessage', maxMessage ?? 2 ** 26, 1)
    this.#publishTimeout = integerOption('publishTimeout', publishTimeout ?? 30_000, 0, 2 ** 31 - 1)
    // Called as a method it would lose its own `this`.
    this.#fetch = (input, init) => fetch(input, init)
  }

  subscribe(options: ClientSubscribeOptions = {}): RemoteSubscription {
    const { from = 'latest', exact = false, onLag = 'skip', signal, onStatus } = options
    if (onLag !== 'fail' && onLag !== 'skip') throw invalid('onLag', 'be "fail" or "skip"', onLag)
    if (signal?.aborted) throw signal.reason
    const filter = filterQuery(options)
    const start = typeof from === 'string' && from !== 'latest' && from !== 'earliest' ? from : undefined
    if (start !== undefined) parseCursor(start)
    const first = `${startQuery(from)}${exact ? '&exact=true' : ''}`
    return new RemoteSubscription(
      {
        connect: async (cursor, onCancel) => {
          const place = cursor === undefined ? first : `from=${encodeURIComponent(cursor)}`
          const limit = new SilenceLimit(firstWithin)
          onCancel(() => limit.abort())
          const request = {
            url: `${this.#base}/v1/events?${place}${filter}`,
            headers: await limit.during(() => this.#currentHeaders()),
            credentials: this.#credentials,
            silence: this.#silence,
            maxMessage: this.#maxMessage,
            onCancel,
          }
          return this.#transport === 'websocket'
            ? openSocket(this.#WebSocket as ClientWebSocket, request)
            : openFetch(this.#fetch, this.#transport, request)
        },
        hasFreshCredentials: typeof this.#headers === 'function',
        onLag,
        onStatus,
        firstWait: this.#firstWait,
        longestWait,
        random: Math.random,
      },
      start,
      signal,
    )
  }

  async publish(events: EventInput | readonly EventInput[], options: ClientPublishOptions = {}): Promise<number> {
    const { id = randomId(), index, expected, signal } = options
    const list = Array.isArray(events) ? (events as readonly EventInput[]) : [events as EventInput]
    const asked = index === undefined ? '' : `"index":${JSON.stringify(index)},`
    const body = `{${asked}"events":[${list.map(inputText).join(',')}]}`
    const query = expected === undefined ? '' : `?expected=${encodeURIComponent(String(expected))}`
    const deadline = host.performance.now() + this.#publishTimeout
    for (let attempt = 0; ; attempt++) {
      try {
        const left = Math.max(1, deadline - host.performance.now())
        return await this.#publishOnce(`${this.#base}/v1/events${query}`, id, body, left, signal)
      } catch (cause) {
        if (signal?.aborted) throw signal.reason
        const { error, retryAfter = 0 } = asRefusal(cause)
        const wait = retryAfter + Math.random() * Math.min(firstPublishWait * 2 ** attempt, longestWait)
        if (!error.retryable || host.performance.now() + wait > deadline) throw error
        await pause(wait, signal)
      }
    }
  }

  /** `ms`: how long it may take. */
  async #publishOnce(url: string, id: string, body: string, ms: number, signal: Signal | undefined): Promise<number> {
    const limit = new SilenceLimit(ms)
    const abort = () => limit.abort(signal?.reason)
    signal?.addEventListener('abort', abort)
    try {
      if (signal?.aborted) throw signal.reason
      return await limit.during(async () => {
        const response = await this.#fetch(url, {
          method: 'POST',
          headers: { ...(await this.#currentHeaders()), 'content-type': 'application/json', 'idempotency-key': id },
          body,
          cache: 'no-store',
          credentials: this.#credentials,
          redirect: 'manual',
          signal: limit.signal as never,
        })
        if (response.status !== 200) throw await refusal(response)
        return indexOf(await limitedText(response))
      })
    } finally {
      signal?.removeEventListener('abort', abort)
    }
  }

  async #currentHeaders(): Promise<Record<string, string>> {
    const headers = this.#headers
    const given = typeof headers === 'function' ? await headers() : headers
    // Names of headers know no case, and those of the client's own must replace the same ones.
    return Object.fromEntries(Object.entries(given).map(([name, value]) => [name.toLowerCase(), value]))
  }
}

function baseOf(url: ClientOptions['url']): string {
  const text = typeof url === 'string' ? url : url?.href
  try {
    const { protocol, href, username, password } = new host.URL(text, host.location?.href)
    // `fetch` refuses a URL that carries a password.
    const isPlain = username === '' && password === ''
    if (isPlain && (protocol === 'http:' || protocol === 'https:'))
      return href.replace(/[?#].*$/, '').replace(/\/+$/, '')
  } catch {}
  const must = 'an absolute http: or https: URL without a user name, or in a browser one relative to the page'
  // It may carry a password.
  throw wrongOption('url', must, typeof text === 'string' ? text.replace(/\/\/[^/]*@/, '//***@') : text)
}

/** What a subscription wants, for a URL. Throws `INVALID` that names the field. */
export function filterQuery({ topics = { '*': ['*'] }, namespaces = ['*'], filter }: ClientSubscribeOptions): string {
  const wanted: string[] = []
  for (const [topic, keys] of Object.entries(topics)) {
    if (!Array.isArray(keys)) throw invalid(`topics.${topic}`, 'be an array of keys', keys)
    for (const key of keys) wanted.push(`&topic=${encodeURIComponent(key === '*' ? topic : `${topic}:${key}`)}`)
  }
  // Without any, the server would send all.
  if (wanted.length === 0) throw invalid('topics', 'name at least one key of a topic', topics)
  if (!Array.isArray(namespaces) || namespaces.length === 0) {
    throw invalid('namespaces', 'be an array of at least one namespace', namespaces)
  }
  for (const namespace of namespaces) wanted.push(`&namespace=${encodeURIComponent(namespace)}`)
  if (filter !== undefined) wanted.push(`&filter=${encodeURIComponent(filter)}`)
  return wanted.join('')
}

/** Where a subscription starts, for a URL. Throws `INVALID`. */
export function startQuery(from: ClientFrom): string {
  if (typeof from === 'string') return `from=${encodeURIComponent(from)}`
  const { last, since } = (from ?? {}) as { readonly last?: unknown; readonly since?: unknown }
  if (isCount(last)) return `last=${last}`
  if (isCount(since) && since <= latestDate) return `from=${encodeURIComponent(new Date(since).toISOString())}`
  throw invalid('from', 'be "latest", "earliest", a cursor, { since } or { last }', from)
}

/** [ECMA-262] The last millisecond that a Date can be. */
const latestDate = 8.64e15

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

/** An event as JSON, its payload byte for byte where it is text already. What it may hold is the server's to say. */
function inputText(event: EventInput): string {
  if (!(event?.payload instanceof JsonText)) return JSON.stringify(event) ?? 'null'
  const { payload, ...names } = event
  return `${JSON.stringify({ ...names, payload: 0 }).slice(0, -2)}${payload.text}}`
}

function indexOf(text: string): number {
  try {
    const { index } = JSON.parse(text) as { index?: unknown }
    if (isCount(index)) return index
  } catch {}
  throw new Refusal(new SpillwayError('UNREACHABLE', `What answered is no Spillway server: ${shown(text)}.`), undefined)
}

function pause(ms: number, signal: Signal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      host.clearTimeout(timer)
      reject(signal?.reason)
    }
    const timer = host.setTimeout(() => {
      signal?.removeEventListener('abort', abort)
      resolve()
    }, ms)
    signal?.addEventListener('abort', abort)
  })
}
