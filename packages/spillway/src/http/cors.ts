import { wrongOption } from '../core/errors.ts'
import type { HandlerRequest, HandlerResponse } from './handler.ts'

const methods = 'GET, POST'
const requestHeaders = 'authorization, content-type, idempotency-key, last-event-id, x-nomad-token'
const responseHeaders = 'retry-after'
/** Seconds for which a browser need not ask again. */
const maxAge = '7200'

/** What a browser lets pages of other origins do. [WHATWG Fetch, 3.3 CORS protocol] */
export class Cors {
  readonly #any: boolean
  readonly #origins: ReadonlySet<string>

  /** Throws `CONFIG` unless `origins` is `*` or a list of origins. */
  constructor(origins: unknown) {
    this.#any = origins === '*'
    const list: unknown = this.#any ? [] : origins
    if (!Array.isArray(list) || !list.every(isOrigin)) {
      const wrong = Array.isArray(list) ? list.find((each) => !isOrigin(each)) : origins
      throw wrongOption('cors', '"*" or an array of origins such as "https://app.example"', wrong)
    }
    this.#origins = new Set(list)
  }

  /** Whether pages of the origin may use cookies, too. */
  trusts(origin: string): boolean {
    return this.#origins.has(origin)
  }

  admits(origin: string): boolean {
    return this.#any || this.#origins.has(origin)
  }

  /** `reply` as pages of the request's origin may see it. */
  admit(request: HandlerRequest, reply: HandlerResponse): HandlerResponse {
    if (!this.#any && this.#origins.size === 0) return reply
    // A cache must not hand one origin what was allowed to another.
    const headers: Record<string, string> = { ...reply.headers, ...(!this.#any && { vary: 'origin' }) }
    const origin = request.header('origin')
    if (origin === undefined || !this.admits(origin)) return { ...reply, headers }
    headers['access-control-allow-origin'] = this.#any ? '*' : origin
    if (!this.#any) headers['access-control-allow-credentials'] = 'true'
    headers['access-control-expose-headers'] = responseHeaders
    if (request.method !== 'OPTIONS' || request.header('access-control-request-method') === undefined) {
      return { ...reply, headers }
    }
    headers['access-control-allow-methods'] = methods
    headers['access-control-allow-headers'] = requestHeaders
    headers['access-control-max-age'] = maxAge
    return { status: 200, headers: { ...headers, 'content-type': 'text/plain' }, body: '' }
  }
}

function isOrigin(value: unknown): value is string {
  if (typeof value !== 'string' || !/^[a-z][a-z0-9+.-]*:\/\/[^/?#\s]+$/.test(value)) return false
  // As a browser writes it: with capitals or the port of the scheme it would match nothing.
  return !/^https?:/.test(value) || (URL.canParse(value) && new URL(value).origin === value)
}
