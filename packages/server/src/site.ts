import { createServer as createHttpServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { type AnyBroker, type Broker, Permit, SpillwayError } from 'spillway'
import { createHandlerState, type Denial, type HandlerOptions, type HandlerState, toNodeHandler } from 'spillway/node'
import type { SharedLog } from 'spillway/shared'
import { attachWebSocket } from 'spillway/websocket'
import { WebSocketServer } from 'ws'
import type { Authenticator } from './auth/authenticator.ts'
import { compileFilter } from './filter-expression.ts'
import { Hosts } from './hosts.ts'
import type { ServerLog } from './log.ts'
import { type Counted, metricsType } from './metrics.ts'
import { createPage } from './page.ts'
import type { Certificate } from './tls.ts'

/** What a site is told of how it serves; plain, so that a thread can be told. */
export interface SiteOptions
  extends Pick<
    HandlerOptions,
    | 'cookie'
    | 'cors'
    | 'heartbeat'
    | 'maxBatch'
    | 'maxBody'
    | 'maxPayload'
    | 'maxPublishRate'
    | 'maxStreams'
    | 'maxStreamsPerAddress'
    | 'maxStreamsPerSubject'
    | 'stallTimeout'
    | 'streamAge'
    | 'trustProxy'
  > {
  /** Names under which the site may be asked, beside its address. */
  hosts?: readonly string[] | undefined
}

/** What a site serves and whom it tells and asks. */
export interface SiteParts {
  readonly broker: AnyBroker & { close(): Promise<void> }
  readonly rightsOf: Authenticator['rightsOf'] | undefined
  readonly certificate: Pick<Certificate, 'current' | 'onChange'> | undefined
  readonly state: HandlerState | undefined
  /** Whether one more connection may be open; `undefined`: no. Otherwise what to call when it is closed. */
  readonly admit: () => (() => void) | undefined
  readonly counted: Counted
  /** What is scraped. */
  readonly metrics: () => string | Promise<string>
  /** Why nothing can be published now, for `GET /readyz`; `undefined`: it can. */
  readonly problem: () => string | undefined | Promise<string | undefined>
  readonly log: ServerLog
}

/** Where to listen. */
export interface ListenOptions {
  readonly port: number
  readonly host: string
  /** Other threads listen there, too. */
  readonly isShared?: boolean
}

/** A broker of the history that follows one which is over, and its log where other threads have that, too. */
export interface NextHistory {
  readonly broker: Broker
  readonly shared: SharedLog | undefined
}

/** The HTTP faces of a broker and the page that shows it, on one port. */
export interface Site {
  /** Resolves with where it listens; rejects if it cannot. */
  listen(options: ListenOptions): Promise<AddressInfo>
  /** Serves another history, on the same port, once the broker of the one before was closed. */
  serve(next: NextHistory): void
  /** Accepts nobody any more, ends the broker, and waits for the connections; what is open after `grace` milliseconds is cut. */
  close(grace: number): Promise<void>
}

/** Bytes of one message of a WebSocket client. */
const maxOrder = 65_536
/** Pieces in which it may come. Each is kept by itself: 16,000 fragments of one byte cost 2 MB. */
const orderLimits = { maxFragments: 1024, maxBufferedChunks: 4096 }
/** Milliseconds within which headers and whole requests must have come: Node's own are made for uploads, and for a minute of silence. */
const requestLimits = { headersTimeout: 10_000, requestTimeout: 60_000, connectionsCheckingInterval: 2_000 }

/** Throws the library's `CONFIG` for a bad option. */
export function createSite(parts: SiteParts, { hosts: names, ...faces }: SiteOptions): Site {
  const { rightsOf, certificate, admit, counted, log } = parts
  let { broker } = parts
  const handling = {
    ...faces,
    // Places, tickets and rates outlive a history.
    state: parts.state ?? createHandlerState(broker, faces),
    compileFilter,
    onError(error: unknown) {
      counted.failed()
      log.error('A request failed', { error })
    },
    onDenied(denial: Denial) {
      counted.denied(denial)
      const { action, code, subject = 'somebody unknown', address } = denial
      log.warn(`Denied: ${action} for ${subject} at ${address}, ${code}`, { ...denial })
    },
  }
  let answer = toNodeHandler(broker, handling)
  const showPage = createPage()
  let hosts = new Hosts('', names)
  let closed: Promise<void> | undefined

  const handle = (request: IncomingMessage, response: ServerResponse) => {
    // A connection that was busy when the server closed is idle once it is answered.
    if (closed) response.setHeader('connection', 'close')
    response.on('close', () => closed && http.closeIdleConnections())
    if (!hosts.has(request.headers.host)) misdirect(request, response)
    else if (pathOf(request) === '/metrics') showMetrics(request, response)
    else if (pathOf(request) === '/readyz') showReadiness(request, response)
    else if (!showPage(request, response)) answer(request, response)
  }
  const http: Server = certificate
    ? createHttpsServer(
        { ...requestLimits, handshakeTimeout: requestLimits.headersTimeout, ...certificate.current },
        handle,
      )
    : createHttpServer(requestLimits, handle)
  http.on('connection', (socket) => {
    const left = admit()
    if (left) socket.once('close', left)
    else socket.destroy()
  })
  http.on('clientError', (error, socket) => {
    counted.badRequest()
    rejectConnection(error, socket)
  })
  certificate?.onChange((pair) => (http as ReturnType<typeof createHttpsServer>).setSecureContext(pair))

  /** For who may read all: counts tell of everybody's events. */
  const showMetrics = async (request: IncomingMessage, response: ServerResponse) => {
    const token = /^Bearer +(.*)$/i.exec(request.headers.authorization ?? '')?.[1] ?? ''
    const refusal = await scrapeRefusal(rightsOf, token)
    if (refusal) {
      const { code, message } = refusal
      const address = request.socket.remoteAddress ?? ''
      handling.onDenied({ code, message, action: 'metrics', subject: undefined, address })
    }
    const text = refusal ? undefined : await parts.metrics()
    response.writeHead(refusal?.status ?? 200, { 'content-type': metricsType, 'cache-control': 'no-store' })
    response.end(request.method === 'HEAD' ? undefined : text)
  }

  /** For load balancers. Whoever reads here is not cut off by it, and those who come all the same are answered. */
  const showReadiness = async (request: IncomingMessage, response: ServerResponse) => {
    const problem = closed ? 'The server is going away.' : await parts.problem()
    response.writeHead(problem ? 503 : 200, {
      'content-type': 'text/plain; charset=utf-8',
      'cache-control': 'no-store',
    })
    response.end(request.method === 'HEAD' ? undefined : `${problem ?? 'ok'}\n`)
  }

  const { maxBody, maxBatch, maxPayload, maxPublishRate, ...streaming } = handling
  const webSockets = new WebSocketServer({
    server: http,
    path: '/v1/events',
    maxPayload: maxOrder,
    ...orderLimits,
    verifyClient: ({ req }, decide) => decide(hosts.has(req.headers.host), 421, 'Misdirected Request'),
  })
  // It passes on what the server under it cannot do, which `listen` rejects with.
  webSockets.on('error', () => {})
  let detach = attachWebSocket(broker, webSockets, streaming)

  const shutDown = async (grace: number) => {
    const ended = new Promise((resolve) => http.close(resolve))
    const force = setTimeout(() => {
      http.closeAllConnections()
      for (const socket of webSockets.clients) socket.terminate()
    }, grace)
    await broker.close()
    http.closeIdleConnections()
    await ended
    clearTimeout(force)
  }

  return {
    async listen({ port, host, isShared = false }) {
      hosts = new Hosts(host, names)
      await listening(http, { port, host, reusePort: isShared })
      return http.address() as AddressInfo
    },
    serve(next) {
      if (closed) return void next.broker.close()
      broker = next.broker
      answer = toNodeHandler(broker, handling)
      detach()
      detach = attachWebSocket(broker, webSockets, streaming)
    },
    close(grace) {
      closed ??= shutDown(grace)
      return closed
    },
  }
}

function pathOf({ url = '' }: IncomingMessage): string {
  return url.split('?', 1)[0] as string
}

function misdirect(request: IncomingMessage, response: ServerResponse): void {
  const detail = 'This server does not answer under this name. Its operator may allow it (hosts, --allow-host).'
  const body = JSON.stringify({ type: 'about:blank', title: 'Misdirected Request', status: 421, detail })
  response.writeHead(421, { 'content-type': 'application/problem+json', 'cache-control': 'no-store' })
  response.end(request.method === 'HEAD' ? undefined : body)
}

/** The answers to what Node could not make a request of. */
const statusLines: Readonly<Record<string, string>> = {
  ERR_HTTP_REQUEST_TIMEOUT: '408 Request Timeout',
  HPE_HEADER_OVERFLOW: '431 Request Header Fields Too Large',
}

function rejectConnection({ code = '' }: NodeJS.ErrnoException, socket: Duplex): void {
  if (socket.writable && code !== 'ECONNRESET') {
    socket.write(`HTTP/1.1 ${statusLines[code] ?? '400 Bad Request'}\r\nConnection: close\r\n\r\n`)
  }
  socket.destroy()
}

/** Why a token may not see what the server counts, if it may not. */
async function scrapeRefusal(rightsOf: SiteParts['rightsOf'], token: string): Promise<SpillwayError | undefined> {
  if (!rightsOf) return undefined
  try {
    const { read } = await rightsOf(token)
    if (new Permit('read', read).isEverything) return undefined
    return new SpillwayError('FORBIDDEN', 'What is counted is for those who may read all.')
  } catch (cause) {
    if (cause instanceof SpillwayError) return cause
    return new SpillwayError('FORBIDDEN', 'Permission denied', { cause })
  }
}

function listening(server: Server, options: { port: number; host: string; reusePort: boolean }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(options, () => {
      server.off('error', reject)
      resolve()
    })
  })
}
