import { createHash } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import {
  type AddressInfo,
  connect,
  createServer as createTcpServer,
  type Socket,
  type Server as TcpServer,
} from 'node:net'
import { gzipSync } from 'node:zlib'
import { WebSocketServer } from 'ws'
import { type Broker, createBroker } from '../../src/core/broker.ts'
import { SpillwayError } from '../../src/core/errors.ts'
import { everything } from '../../src/core/rights.ts'
import { toNodeHandler } from '../../src/http/node.ts'
import { attachWebSocket } from '../../src/http/websocket.ts'

/** What stands between a client and its server does to the bytes. */
export type Mode =
  | 'pass'
  /** What the server sends arrives byte by byte. */
  | 'bytes'
  /** Connections stay open, and nothing arrives any more. */
  | 'silent'
  /** Connections are reset as soon as they stand. */
  | 'refuse'
  /** The server gets the request; its answer is lost with the connection. */
  | 'lose answer'

/** A broker behind its HTTP faces, behind a proxy that does harm, controlled by {@link Order}s. */
export interface SiteState {
  readonly url: string
  readonly newest: number
  readonly subscriptions: number
  /** Connections that the proxy took. */
  readonly connections: number
  readonly epoch: string
}

export interface SiteOptions {
  readonly capacity?: number
  /** Tokens that are admitted; everybody if absent. */
  readonly tokens?: readonly string[]
  /**
   * In place of a server: what is sent to each connection in turn, the last one to all that follow. Each is cut after it.
   * Bytes as base64; behind `ws:`, of a message that follows the handshake of a WebSocket; `bomb:` and a content type: an
   * endless line, compressed a thousandfold.
   */
  readonly script?: readonly string[]
}

export class FaultySite {
  #broker: Broker
  readonly #options: SiteOptions
  #tokens: Set<string> | undefined
  #server: Server | undefined
  #webSockets: WebSocketServer | undefined
  #upstream = 0
  readonly #proxy: TcpServer
  readonly #sockets = new Set<Socket>()
  #mode: Mode = 'pass'
  #connections = 0
  #scripted = 0

  private constructor(options: SiteOptions) {
    this.#options = options
    this.#tokens = options.tokens && new Set(options.tokens)
    this.#broker = this.#createBroker()
    this.#proxy = createTcpServer((socket) => this.#take(socket))
  }

  static async open(options: SiteOptions): Promise<FaultySite> {
    const site = new FaultySite(options)
    await site.#listen()
    await listening(site.#proxy)
    return site
  }

  get state(): SiteState {
    const { newestIndex: newest, subscriptions, epoch } = this.#broker.status
    const url = `http://127.0.0.1:${(this.#proxy.address() as AddressInfo).port}`
    return { url, newest, subscriptions, connections: this.#connections, epoch }
  }

  /** Publishes batches of one event each, with these keys. */
  async publish(keys: readonly string[], payload?: unknown): Promise<void> {
    for (const key of keys) await this.#broker.publish({ topic: 'Test', type: 'Tested', key, payload: payload ?? key })
  }

  setMode(mode: Mode): void {
    this.#mode = mode
  }

  /** Resets all connections. */
  cut(): void {
    for (const socket of this.#sockets) {
      // Node leaves a connection open that it is to reset while it is being shut down.
      if (socket.writableEnded) socket.destroy()
      else socket.resetAndDestroy()
    }
  }

  setTokens(tokens: readonly string[]): void {
    this.#tokens = new Set(tokens)
    this.#broker.recheck()
  }

  /** The server ends, as in a deploy. Until it starts again nobody gets a connection. */
  async stop(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    for (const socket of this.#webSockets?.clients ?? []) socket.terminate()
    server?.closeAllConnections()
    await new Promise((resolve) => server?.close(resolve) ?? resolve(undefined))
  }

  /** `history`: whether it still knows what it had. */
  async start(history: boolean): Promise<void> {
    if (!history) {
      await this.#broker.close()
      this.#broker = this.#createBroker()
    }
    await this.#listen()
  }

  /** Ends all streams with a word, and serves on with another history. */
  async renew(): Promise<void> {
    await this.stop()
    await this.start(false)
  }

  async close(): Promise<void> {
    this.#proxy.close()
    this.cut()
    await this.stop()
    await this.#broker.close()
  }

  #createBroker(): Broker {
    const { capacity = 1000 } = this.#options
    return createBroker({
      capacity,
      authorize: ({ token }) => {
        if (this.#tokens && !this.#tokens.has(token))
          throw new SpillwayError('UNAUTHORIZED', 'This token is not valid.')
        return everything
      },
    })
  }

  async #listen(): Promise<void> {
    const server = createServer(toNodeHandler(this.#broker, { heartbeat: 100, cors: '*', onError: () => {} }))
    this.#server = server
    this.#webSockets = new WebSocketServer({ server, path: '/v1/events' })
    attachWebSocket(this.#broker, this.#webSockets, { heartbeat: 100, cors: '*', onError: () => {} })
    this.#upstream = await listening(server)
  }

  #take(socket: Socket): void {
    this.#connections++
    this.#sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => this.#sockets.delete(socket))
    const { script } = this.#options
    if (script) {
      socket.once('data', (request) => {
        // A browser asks first whether it may send a token.
        if (request.toString().startsWith('OPTIONS')) socket.end(preflightAnswer)
        else socket.end(said(script[Math.min(this.#scripted++, script.length - 1)] as string, request.toString()))
      })
      return
    }
    if (this.#mode === 'refuse' || !this.#server) {
      socket.resetAndDestroy()
      return
    }
    const upstream = connect(this.#upstream, '127.0.0.1')
    socket.setNoDelay(true)
    socket.on('data', (bytes) => upstream.write(bytes))
    socket.on('close', () => upstream.destroy())
    upstream.on('error', () => {})
    upstream.on('close', () => socket.destroy())
    upstream.on('data', (bytes) => this.#pass(bytes as Buffer, socket))
  }

  #pass(bytes: Buffer, socket: Socket): void {
    if (this.#mode === 'silent') return
    if (this.#mode === 'lose answer') {
      // The one answer: whoever asks again gets through.
      this.#mode = 'pass'
      socket.resetAndDestroy()
      return
    }
    if (this.#mode !== 'bytes') socket.write(bytes)
    else for (const byte of bytes) socket.write(Buffer.of(byte))
  }
}

function bombHead(type: string): Buffer {
  const lines = ['HTTP/1.1 200 OK', `Content-Type: ${type}`, 'Content-Encoding: gzip', 'Access-Control-Allow-Origin: *']
  return Buffer.from(`${lines.join('\r\n')}\r\nConnection: close\r\n\r\n`)
}

/** The bytes of one answer of a script. */
function said(answer: string, request: string): Buffer {
  if (answer.startsWith('bomb:'))
    return Buffer.concat([bombHead(answer.slice(5)), gzipSync(Buffer.alloc(2 ** 26, 'x'))])
  if (!answer.startsWith('ws:')) return Buffer.from(answer, 'base64')
  const key = /^sec-websocket-key: (.*)$/im.exec(request)?.[1]?.trim()
  const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
  const head = ['HTTP/1.1 101 Switching Protocols', 'Upgrade: websocket', 'Connection: Upgrade']
  const message = Buffer.from(answer.slice(3), 'base64')
  // [RFC 6455, 5.2] A text frame, its length in two bytes.
  const frame = Buffer.from([0x81, 126, message.length >> 8, message.length & 0xff])
  return Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`), frame, message])
}

const preflightAnswer = [
  'HTTP/1.1 200 OK',
  'Access-Control-Allow-Origin: *',
  'Access-Control-Allow-Headers: authorization, content-type, idempotency-key',
  'Content-Length: 0',
  'Connection: close',
  '\r\n',
].join('\r\n')

function listening(server: Server | TcpServer): Promise<number> {
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port))
  })
}
