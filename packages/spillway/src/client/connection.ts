import { type ErrorCode, errorTable, SpillwayError, shown } from '../core/errors.ts'
import { blockParser, lineParser, type Message, type Parser, violation } from './parse.ts'
import { type BodyReader, type Credentials, type Fetch, type FetchResponse, host } from './runtime.ts'
import { firstWithin, SilenceLimit } from './silence.ts'

/** One connection to a stream. Whoever does not read holds the server back; nothing gathers here. */
export interface Connection {
  /**
   * What came next, perhaps nothing that counts; `undefined` once the stream has ended. Rejects if it breaks. What is wrong
   * with a message is thrown in its place.
   */
  read(): Promise<Iterable<Message> | undefined>
  /** The first message has come: from here on it must not fall silent. */
  opened(): void
  /** Lets go of it. Harmless when done twice. */
  close(): void
}

/** What is asked of a server, whatever carries it. */
export interface StreamRequest {
  /** Of the resource, with its query. */
  readonly url: string
  readonly headers: Record<string, string>
  readonly credentials: Credentials
  /** Milliseconds without a byte after which a connection that is being read counts as lost. */
  readonly silence: number
  /** UTF-16 units that one message may have. */
  readonly maxMessage: number
  /** Is given what gives up while the connection is being opened. */
  readonly onCancel: (cancel: () => void) => void
}

/** However long a server asks for, in milliseconds. */
const longestRetryAfter = 3_600_000

/** Why a connection was refused, and when the server wants to be asked again. */
export class Refusal extends Error {
  readonly error: SpillwayError
  /** Milliseconds, an hour at the most. */
  readonly retryAfter: number | undefined

  constructor(error: SpillwayError, retryAfter: number | undefined) {
    super(error.message, { cause: error })
    this.error = error
    this.retryAfter = retryAfter && Math.min(retryAfter, longestRetryAfter)
  }
}

/** Whatever failed, as a refusal. */
export function asRefusal(cause: unknown): Refusal {
  if (cause instanceof Refusal) return cause
  if (cause instanceof SpillwayError) return new Refusal(cause, undefined)
  return new Refusal(
    new SpillwayError('UNREACHABLE', `The connection failed: ${reasonOf(cause)}.`, { cause }),
    undefined,
  )
}

/** The innermost reason: `fetch` says only that it failed. */
function reasonOf(error: unknown): string {
  const { cause, message } = (error ?? {}) as { cause?: unknown; message?: unknown }
  if (cause !== undefined) return reasonOf(cause)
  return typeof message === 'string' && message !== '' ? message.replace(/\.$/, '') : String(error)
}

const formats = {
  ndjson: { accept: 'application/x-ndjson', parser: lineParser },
  sse: { accept: 'text/event-stream', parser: blockParser },
} as const

/** Opens a stream over `fetch`. Rejects with a {@link Refusal}, or with the error of whatever failed. */
export async function openFetch(fetch: Fetch, format: 'ndjson' | 'sse', request: StreamRequest): Promise<Connection> {
  const { accept, parser } = formats[format]
  const limit = new SilenceLimit(firstWithin)
  request.onCancel(() => limit.abort())
  try {
    const { url, credentials, headers } = request
    const response = await limit.during(() =>
      fetch(url, {
        method: 'GET',
        headers: { ...headers, accept },
        cache: 'no-store',
        credentials,
        redirect: 'manual',
        signal: limit.signal as never,
      }),
    )
    if (response.status !== 200) throw await limit.during(() => refusal(response))
    const type = response.headers.get('content-type') ?? ''
    if (!type.startsWith(accept) || !response.body) {
      // The sign-in page of a network, or a proxy: it may be gone the next time.
      throw new SpillwayError('UNREACHABLE', `What answered is no stream: Content-Type is ${shown(type)}.`)
    }
    return new FetchConnection(response.body.getReader(), parser(request.maxMessage), limit, request.silence)
  } catch (error) {
    limit.abort()
    throw error
  }
}

class FetchConnection implements Connection {
  readonly #body: BodyReader
  readonly #parse: Parser
  readonly #limit: SilenceLimit
  readonly #silence: number
  // Fatal: a replaced byte would be a changed payload.
  readonly #decoder = new host.TextDecoder('utf-8', { fatal: true })

  constructor(body: BodyReader, parse: Parser, limit: SilenceLimit, silence: number) {
    this.#body = body
    this.#parse = parse
    this.#limit = limit
    this.#silence = silence
  }

  async read(): Promise<Iterable<Message> | undefined> {
    const { done, value } = await this.#limit.during(() => this.#body.read())
    // What is left is half a message: the cursor asks for it again.
    if (done) return undefined
    return this.#parse(this.#decode(value as Uint8Array))
  }

  opened(): void {
    this.#limit.relax(this.#silence)
  }

  close(): void {
    this.#limit.abort()
    this.#body.cancel().catch(() => {})
  }

  #decode(bytes: Uint8Array): string {
    try {
      return this.#decoder.decode(bytes, { stream: true })
    } catch (cause) {
      throw violation('it is not UTF-8', cause)
    }
  }
}

/** UTF-16 units of a refusal that are read: a stranger's may have no end. */
const maxRefusal = 65_536

/** What an answer that is not 200 says. */
export async function refusal(response: FetchResponse): Promise<Refusal> {
  const { status, type, headers } = response
  // Followed, it might carry a token to another host. A browser does not even tell where it leads.
  if (type === 'opaqueredirect' || (status >= 300 && status < 400)) {
    const to = headers.get('location')
    const where = to === null ? '' : ` to ${shown(to)}`
    return new Refusal(
      new SpillwayError('CONFIG', `The server redirects${where}. Give the client that url.`),
      undefined,
    )
  }
  const text = await limitedText(response)
  const { code, detail, cursor, index } = problemOf(headers.get('content-type'), text)
  const message = typeof detail === 'string' ? detail : `The server answered with status ${status}.`
  const options = {
    ...(typeof cursor === 'string' && { cursor }),
    ...(typeof index === 'number' && { index }),
  }
  return new Refusal(
    new SpillwayError(codeOf(code, status), message, options),
    retryAfterOf(headers.get('retry-after')),
  )
}

function codeOf(code: unknown, status: number): ErrorCode {
  if (typeof code === 'string' && Object.hasOwn(errorTable, code)) return code as ErrorCode
  const known: Readonly<Record<number, ErrorCode>> = {
    401: 'UNAUTHORIZED',
    403: 'FORBIDDEN',
    404: 'NOT_FOUND',
    413: 'TOO_LARGE',
  }
  // [RFC 9110, 15.5.9 and RFC 6585, 4] 408 and 429 are about this moment, as a server's own failures are.
  if (status >= 500 || status === 408 || status === 429) return 'UNREACHABLE'
  return known[status] ?? 'PROTOCOL'
}

/** The members that count of a body of RFC 9457. */
function problemOf(
  type: string | null,
  text: string,
): Partial<Record<'code' | 'detail' | 'cursor' | 'index', unknown>> {
  if (!type?.includes('json')) return {}
  try {
    return { ...(JSON.parse(text) as object) }
  } catch {
    return {}
  }
}

/** The text of a body, up to {@link maxRefusal}; the rest is not read. */
export async function limitedText({ body }: FetchResponse): Promise<string> {
  if (!body) return ''
  const reader = body.getReader()
  const decoder = new host.TextDecoder('utf-8', { fatal: false })
  let text = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return text
    text += decoder.decode(value as Uint8Array, { stream: true })
    if (text.length <= maxRefusal) continue
    reader.cancel().catch(() => {})
    return text.slice(0, maxRefusal)
  }
}

/** [RFC 9110, 10.2.3] Seconds, or a date. In milliseconds. */
function retryAfterOf(header: string | null): number | undefined {
  if (header === null) return undefined
  const ms = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - Date.now()
  return Number.isNaN(ms) ? undefined : Math.max(ms, 0)
}
