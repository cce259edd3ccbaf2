import type { AnyBroker } from '../core/broker.ts'
import { SpillwayError, shown } from '../core/errors.ts'
import type { Piece, Sink } from './fan-out/sink.ts'
import type { EventStream } from './fan-out/stream.ts'
import { createHandler, type HandlerOptions, type HandlerRequest, type HandlerResponse } from './handler.ts'

export interface FetchHandlerOptions extends HandlerOptions {
  /** The path before `/v1`, such as `/api`, where the handler does not stand at the root. Default: none. */
  prefix?: string | undefined
  /** The address that a request came from, which only the runtime knows: limits count it. Default: none. */
  addressOf?: ((request: Request) => string | undefined) | undefined
}

/** Answers a request of the Fetch standard. It does not reject; a path that is not the broker's is answered 404. */
export type FetchHandler = (request: Request) => Promise<Response>

/**
 * The HTTP faces of `broker` for everything that speaks `Request` and `Response`: Hono, route handlers of Next, SvelteKit,
 * Bun, Deno, workers. Throws `CONFIG` for a bad option.
 */
export function toFetchHandler(
  broker: AnyBroker,
  { prefix = '', addressOf, ...options }: FetchHandlerOptions = {},
): FetchHandler {
  if (typeof prefix !== 'string' || !/^(\/[^?#]*[^/?#])?$/.test(prefix)) {
    throw new SpillwayError('CONFIG', `prefix must begin with a slash and not end in one, got ${shown(prefix)}.`)
  }
  const handle = createHandler(broker, options)
  return async (request) => {
    const { pathname, search } = new URL(request.url)
    const path = pathname.startsWith(`${prefix}/`) ? pathname.slice(prefix.length) : ''
    const exchange = new FetchExchange(request, addressOf?.(request) ?? '', path, search.slice(1))
    const { status, headers, body } = (await handle(exchange, pathname)) as HandlerResponse
    if (typeof body === 'string') {
      return new Response(request.method === 'HEAD' ? null : body, { status, headers: { ...headers } })
    }
    return new Response(exchange.connect(body), { status, headers: { ...headers } })
  }
}

class FetchExchange implements HandlerRequest {
  readonly method: string
  readonly address: string
  readonly path: string
  readonly query: string
  readonly #request: Request
  #gone: (() => void) | undefined
  /** Ends the body whose peer has gone: whoever reads it would wait for ever. */
  #end: (() => void) | undefined
  #isGone = false

  constructor(request: Request, address: string, path: string, query: string) {
    this.address = address
    this.#request = request
    this.method = request.method
    this.path = path
    this.query = query
  }

  header(name: string): string | undefined {
    return this.#request.headers.get(name) ?? undefined
  }

  async *body(): AsyncGenerator<Uint8Array> {
    // Not every runtime can iterate over a stream.
    const reader = this.#request.body?.getReader()
    if (!reader) return
    try {
      for (;;) {
        const { done, value } = await reader.read()
        if (done) return
        yield value
      }
    } finally {
      reader.cancel().catch(() => {})
    }
  }

  onGone(listener: () => void): void {
    const { signal } = this.#request
    this.#gone = () => {
      this.#gone = undefined
      this.#isGone = true
      signal.removeEventListener('abort', leave)
      listener()
    }
    const leave = () => {
      this.#gone?.()
      this.#end?.()
    }
    signal.addEventListener('abort', leave)
    if (signal.aborted) leave()
  }

  /** The body that a stream is sent as. Runtimes differ in how they tell that the peer has gone: either is enough. */
  connect(stream: EventStream): ReadableStream<Uint8Array> | null {
    // It went away while its access was being checked.
    if (this.#isGone) return null
    const { highWaterMark } = stream
    const over = () => {
      this.#end = undefined
      this.#gone?.()
    }
    return new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#end = () => controller.close()
          stream.open(new StreamSink(controller, highWaterMark, over))
        },
        pull: () => stream.drained(),
        cancel: over,
      },
      { highWaterMark, size: (bytes) => bytes?.byteLength ?? 0 },
    )
  }
}

/** Hands bytes to whoever reads the body. */
class StreamSink implements Sink {
  readonly #controller: ReadableStreamDefaultController<Uint8Array>
  readonly #highWaterMark: number
  readonly #over: () => void
  #written = 0

  constructor(controller: ReadableStreamDefaultController<Uint8Array>, highWaterMark: number, over: () => void) {
    this.#controller = controller
    this.#highWaterMark = highWaterMark
    this.#over = over
  }

  write({ bytes }: Piece): boolean {
    this.#written += bytes.byteLength
    // The same bytes go to others: a body that changed them would change theirs.
    this.#controller.enqueue(bytes)
    return this.#room > 0
  }

  isWaiting(): boolean {
    return this.#room < this.#highWaterMark
  }

  taken(): number {
    return this.#written - (this.#highWaterMark - this.#room)
  }

  end(): void {
    this.#controller.close()
    this.#over()
  }

  abort(): void {
    this.#controller.error(new SpillwayError('STALLED', 'The reader took no bytes for too long.'))
    this.#over()
  }

  /** Bytes that may still be handed over; negative if more wait than should. */
  get #room(): number {
    return this.#controller.desiredSize ?? 0
  }
}
