import { createServer as createHttpServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type Broker, type BrokerOptions, createBroker, type Log } from 'spillway'
import { type HandlerOptions, toNodeHandler } from 'spillway/node'
import { attachWebSocket } from 'spillway/websocket'
import { WebSocketServer } from 'ws'
import { type HostSource, startHostSource } from './host-source.ts'
import { type ServerLog, silentLog } from './log.ts'
import { createPage } from './page.ts'

export interface ServerOptions
  extends Pick<BrokerOptions, 'capacity' | 'maxBytes' | 'maxAge'>,
    Pick<
      HandlerOptions,
      | 'heartbeat'
      | 'stallTimeout'
      | 'streamAge'
      | 'maxStreams'
      | 'maxStreamsPerSubject'
      | 'maxStreamsPerAddress'
      | 'maxPublishRate'
      | 'maxBody'
      | 'cors'
    > {
  /** Where history is kept. Default: in memory, with the limits of this server. Closed with the server. */
  history?: Log | undefined
  /** Where events come from beside publishers. `host`: the counters of this machine, once a second. Default `none`. */
  source?: 'host' | 'none'
  /** Default: silent. */
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
const defaultGrace = 4000
/** Bytes of one message of a WebSocket client. */
const maxOrder = 65_536
/** Milliseconds within which headers and whole requests must have come: Node's own are made for uploads, and for a minute of silence. */
const requestLimits = { headersTimeout: 10_000, requestTimeout: 60_000, connectionsCheckingInterval: 2_000 }

/** Throws the library's `CONFIG` for a bad option. */
export function createServer({
  capacity = defaultCapacity,
  maxBytes,
  maxAge,
  history,
  source = 'none',
  log = silentLog,
  ...faces
}: ServerOptions = {}): SpillwayServer {
  const broker = createBroker(defined({ capacity, maxBytes, maxAge, log: history }))
  const onError = (error: unknown) => log.error('A request failed', { error })
  const handling = { ...defined(faces), onError }
  const answer = toNodeHandler(broker, handling)
  const showPage = createPage()
  let host: HostSource | undefined
  let closed: Promise<void> | undefined

  const http = createHttpServer(requestLimits, (request, response) => {
    // A connection that was busy when the server closed is idle once it is answered.
    if (closed) response.setHeader('connection', 'close')
    response.on('close', () => closed && http.closeIdleConnections())
    if (!showPage(request, response)) answer(request, response)
  })

  const { maxBody: _maxBody, ...streaming } = handling
  const webSockets = new WebSocketServer({ server: http, path: '/v1/events', maxPayload: maxOrder })
  // It passes on what the server under it cannot do, which `listen` rejects with.
  webSockets.on('error', () => {})
  attachWebSocket(broker, webSockets, streaming)

  const shutDown = async (grace: number) => {
    const ended = new Promise((resolve) => http.close(resolve))
    const force = setTimeout(() => {
      http.closeAllConnections()
      for (const socket of webSockets.clients) socket.terminate()
    }, grace)
    await host?.stop()
    await broker.close()
    http.closeIdleConnections()
    await ended
    clearTimeout(force)
  }

  return {
    broker,
    async listen({ port = 0, host: address = '127.0.0.1' } = {}) {
      await listening(http, port, address)
      if (source === 'host') host = startHostSource({ publish: (events) => broker.publish(events), log })
      return urlOf(http.address() as AddressInfo)
    },
    close({ grace = defaultGrace } = {}) {
      closed ??= shutDown(grace)
      return closed
    },
  }
}

/** Whether only this machine can reach `host`. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.[0-9.]+$/.test(host)
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

function urlOf({ address, family, port }: AddressInfo): string {
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`
}

type Defined<T> = { [Key in keyof T]?: Exclude<T[Key], undefined> }

/** Without the members that are `undefined`, which exact optional types do not take. */
function defined<T extends object>(values: T): Defined<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Defined<T>
}
