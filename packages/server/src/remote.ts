import { reasons } from './log.ts'

/** A Spillway server, and who is asking. */
export interface Remote {
  /** Ends in a slash. */
  readonly url: URL
  readonly token: string | undefined
}

/** The server answered, and the answer is no. */
export class Refused extends Error {
  override readonly name = 'Refused'
  readonly status: number
  /** Whether the answer is Spillway's own, rather than that of a proxy or of another server. */
  readonly own: boolean

  constructor(status: number, own: boolean, message: string) {
    super(message)
    this.status = status
    this.own = own
  }
}

/** There was no whole answer. */
export class Unreachable extends Error {
  override readonly name = 'Unreachable'
  /** Whether the request may have arrived all the same. */
  readonly sent: boolean

  constructor(url: URL, cause: unknown) {
    super(`${url.origin}: ${networkReason(cause)}`, { cause })
    this.sent = !neverSent.has(codeOf(cause))
  }
}

const neverSent = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
])

/** Sends a request to a path of `remote`. Rejects with `Refused` unless the answer is a 2xx, or with `Unreachable`. */
export async function request(remote: Remote, path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers)
  if (remote.token) headers.set('authorization', `Bearer ${remote.token}`)
  let response: Response
  try {
    response = await fetch(new URL(path, remote.url), { ...init, headers })
  } catch (cause) {
    throw new Unreachable(remote.url, cause)
  }
  if (response.ok) return response
  throw await refusal(response)
}

/** The body of an answer as JSON. Rejects with `Unreachable` if it breaks off, with `Refused` if it is something else. */
export async function jsonOf(remote: Remote, response: Response): Promise<Record<string, unknown>> {
  let text: string
  try {
    text = await response.text()
  } catch (cause) {
    throw new Unreachable(remote.url, cause)
  }
  const value = parsed(text)
  if (value) return value
  throw new Refused(response.status, false, `The answer of ${remote.url.origin} is not JSON. Is it a Spillway server?`)
}

async function refusal(response: Response): Promise<Refused> {
  const text = await response.text().catch(() => '')
  const problem = response.headers.get('content-type')?.includes('json') ? parsed(text) : undefined
  const detail = problem?.detail
  if (typeof detail === 'string') return new Refused(response.status, true, sentence(detail))
  const reason = `${response.status} ${response.statusText}`.trim()
  return new Refused(response.status, false, `The server answered ${reason}, which is not an answer of Spillway's.`)
}

/** Other people's messages may lack their full stop, and ours go on after them. */
function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`
}

function parsed(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

/** Why a request failed, in the words of the network rather than of `fetch`. */
export function networkReason(error: unknown): string {
  const code = codeOf(error)
  const words: Readonly<Record<string, string>> = {
    ECONNREFUSED: 'connection refused',
    ECONNRESET: 'the connection was cut',
    UND_ERR_SOCKET: 'the connection was cut',
    ENOTFOUND: 'no such host',
    EAI_AGAIN: 'the host name could not be looked up',
    UND_ERR_CONNECT_TIMEOUT: 'no connection in time',
  }
  if (words[code]) return words[code]
  const innermost = deepest(error)
  if (innermost instanceof Error && innermost.name === 'TimeoutError') return 'no answer in time'
  return innermost instanceof Error && innermost.message ? innermost.message : reasons(error)
}

function codeOf(error: unknown): string {
  const { code } = deepest(error) as { code?: unknown }
  return typeof code === 'string' ? code : ''
}

/** What `fetch` hides below "fetch failed". Of several addresses that were tried, the first. */
function deepest(error: unknown): unknown {
  if (error instanceof AggregateError && error.errors.length > 0) return deepest(error.errors[0])
  if (error instanceof Error && error.cause !== undefined) return deepest(error.cause)
  return error ?? {}
}
