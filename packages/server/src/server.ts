import { createServer as createHttpServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { type Broker, type BrokerOptions, createBroker, type Log, Permit, SpillwayError } from 'spillway'
import { type Denial, type HandlerOptions, toNodeHandler } from 'spillway/node'
import { attachWebSocket } from 'spillway/websocket'
import { WebSocketServer } from 'ws'
import type { Authenticator } from './auth/authenticator.ts'
import { compileFilter } from './filter-expression.ts'
import { type HostSource, startHostSource } from './host-source.ts'
import { Hosts } from './hosts.ts'
import { type ServerLog, silentLog } from './log.ts'
import { Metrics } from './metrics.ts'
import { createPage } from './page.ts'
import type { Certificate } from './tls.ts'

export interface ServerOptions
  extends Pick<BrokerOptions, 'capacity' | 'maxBytes' | 'maxAge'>,
    Pick<
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
  /** Where history is kept. Default: in memory, with the limits of this server. Closed with the server. */
  history?: Log | undefined
  /** Who knows the tokens of callers. Default: everybody may do all. Closed with the server. */
  auth?: Authenticator | undefined
  /** For https. Default: http. Closed with the server. */
  certificate?: Certificate | undefined
  /**
   * Names under which the server may be asked, beside its address; requests for others are refused with 421. Default: where
   * only this machine can reach it, `localhost`, `127.0.0.1` and `[::1]`; elsewhere any.
   */
  hosts?: readonly string[] | undefined
  /** Connections that may be open at once; more are closed at once. Default 25,000. */
  maxConnections?: number | undefined
  /** Where events come from beside publishers. `host`: the counters of this machine, once a second. Default `none`. */
  source?: 'host' | 'none'
  /** Also the audit log: who was denied, and whose streams were ended. Default: silent. */
  log?: ServerLog
}

/** A broker, its HTTP faces and the page that shows it, on one port. */
export interface SpillwayServer {
  readonly broker: Broker
  /** Starts listening, and the source with it. Resolves with the server's URL; rejects if it cannot listen there. */
  listen(options?: { port?: number; host?: string }): Promise<string>
  /**
   * Accepts nobody any more, tells readers `SHUTDOWN`, and waits until they are gone; what is still open after `grace`
   * milliseconds is cut. Harmless when done twice.
   */
  close(options?: { grace?: number }): Promise<void>
}

const defaultCapacity = 10_000
const defaultConnections = 25_000
const defaultGrace = 4000
/** Bytes of one message of a WebSocket client. */
const maxOrder = 65_536
/** Pieces in which it may come. Each is kept by itself: 16,000 fragments of one byte cost 2 MB. */
const orderLimits = { maxFragments: 1024, maxBufferedChunks: 4096 }
/** Milliseconds within which headers and whole requests must have come: Node's own are made for uploads, and for a minute of silence. */
const requestLimits = { headersTimeout: 10_000, requestTimeout: 60_000, connectionsCheckingInterval: 2_000 }

/** Throws the library's `CONFIG` for a bad option. */
export function createServer({
  capacity = defaultCapacity,
  maxBytes,
  maxAge,
  history,
  auth,
  certificate,
  hosts: names,
  maxConnections = defaultConnections,
  source = 'none',
  log = silentLog,
  ...faces
}: ServerOptions = {}): SpillwayServer {
  const metrics = new Metrics()
  const authorize = auth && (({ token }: { token: string }) => auth.rightsOf(token))
  const broker = createBroker(defined({ capacity, maxBytes, maxAge, log: history, authorize }))
  const stopListening = auth?.onChange((subject) => broker.recheck(subject))
  const handling = {
    ...defined(faces),
    compileFilter,
    onError(error: unknown) {
      metrics.failed()
      log.error('A request failed', { error })
    },
    onDenied(denial: Denial) {
      metrics.denied(denial)
      const { action, code, subject = 'somebody unknown', address } = denial
      log.warn(`Denied: ${action} for ${subject} at ${address}, ${code}`, { ...denial })
    },
  }
  const answer = toNodeHandler(broker, handling)
  const showPage = createPage()
  let hosts = new Hosts('', names)
  let host: HostSource | undefined
  let closed: Promise<void> | undefined

  const handle = (request: IncomingMessage, response: ServerResponse) => {
    // A connection that was busy when the server closed is idle once it is answered.
    if (closed) response.setHeader('connection', 'close')
    response.on('close', () => closed && http.closeIdleConnections())
    if (!hosts.has(request.headers.host)) misdirect(request, response)
    else if (pathOf(request) === '/metrics') showMetrics(request, response)
    else if (!showPage(request, response)) answer(request, response)
  }
  const http: Server = certificate
    ? createHttpsServer(
        { ...requestLimits, handshakeTimeout: requestLimits.headersTimeout, ...certificate.current },
        handle,
      )
    : createHttpServer(requestLimits, handle)
  http.maxConnections = maxConnections
  http.on('clientError', (error, socket) => {
    metrics.badRequest()
    rejectConnection(error, socket)
  })
  certificate?.onChange((pair) => (http as ReturnType<typeof createHttpsServer>).setSecureContext(pair))

  /** For who may read all: counts tell of everybody's events. */
  const showMetrics = async (request: IncomingMessage, response: ServerResponse) => {
    const token = /^Bearer +(.*)$/i.exec(request.headers.authorization ?? '')?.[1] ?? ''
    const refusal = await scrapeRefusal(auth, token)
    if (refusal) {
      const { code, message } = refusal
      const address = request.socket.remoteAddress ?? ''
      handling.onDenied({ code, message, action: 'metrics', subject: undefined, address })
    }
    response.writeHead(refusal?.status ?? 200, { 'content-type': metrics.contentType, 'cache-control': 'no-store' })
    response.end(refusal || request.method === 'HEAD' ? undefined : metrics.text(broker.status))
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
  attachWebSocket(broker, webSockets, streaming)

  const shutDown = async (grace: number) => {
    const ended = new Promise((resolve) => http.close(resolve))
    const force = setTimeout(() => {
      http.closeAllConnections()
      for (const socket of webSockets.clients) socket.terminate()
    }, grace)
    stopListening?.()
    metrics.close()
    await host?.stop()
    await broker.close()
    http.closeIdleConnections()
    await ended
    clearTimeout(force)
    await Promise.all([auth?.close(), certificate?.close()])
  }

  return {
    broker,
    async listen({ port = 0, host: address = '127.0.0.1' } = {}) {
      hosts = new Hosts(address, names)
      await listening(http, port, address)
      if (source === 'host') host = startHostSource({ publish: (events) => broker.publish(events), log })
      return urlOf(certificate ? 'https' : 'http', http.address() as AddressInfo)
    },
    close({ grace = defaultGrace } = {}) {
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
async function scrapeRefusal(auth: Authenticator | undefined, token: string): Promise<SpillwayError | undefined> {
  if (!auth) return undefined
  try {
    const { read } = await auth.rightsOf(token)
    if (new Permit('read', read).isEverything) return undefined
    return new SpillwayError('FORBIDDEN', 'What is counted is for those who may read all.')
  } catch (cause) {
    if (cause instanceof SpillwayError) return cause
    return new SpillwayError('FORBIDDEN', 'Permission denied', { cause })
  }
}

function listening(server: Server, port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ port, host }, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

function urlOf(scheme: 'http' | 'https', { address, family, port }: AddressInfo): string {
  return `${scheme}://${family === 'IPv6' ? `[${address}]` : address}:${port}`
}

type Defined<T> = { [Key in keyof T]?: Exclude<T[Key], undefined> }

/** Without the members that are `undefined`, which exact optional types do not take. */
function defined<T extends object>(values: T): Defined<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Defined<T>
}
