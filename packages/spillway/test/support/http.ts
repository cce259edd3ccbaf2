import assert from 'node:assert/strict'
import {
  createServer,
  type IncomingMessage,
  request,
  type Server,
  type ServerOptions,
  type ServerResponse,
} from 'node:http'
import type { AddressInfo } from 'node:net'
import type { TestContext } from 'node:test'
import { type Broker, type BrokerOptions, createBroker } from '../../src/core/broker.ts'
import type { StoredBatch } from '../../src/core/event.ts'
import { type HandlerOptions, toNodeHandler } from '../../src/http/node.ts'

/** How long a condition may take before a test gives up: much longer than on any machine that is only slow. */
const patience = 20_000

export interface SiteOptions {
  /** A broker that lives on after the site; default: one with `capacity` 1,000 that ends with it. */
  broker?: Broker
  brokerOptions?: BrokerOptions
  handler?: HandlerOptions
  /** For `node:http`. */
  server?: ServerOptions
  port?: number
}

/** A broker behind its HTTP faces on 127.0.0.1. */
export interface Site {
  readonly broker: Broker
  readonly port: number
  readonly url: string
  readonly server: Server
  /** The requests that came in, newest last, as the server holds them. */
  readonly exchanges: Exchange[]
  /** What the handler told `onError`. */
  readonly errors: unknown[]
  /** Drops all connections and stops listening. The broker stays. */
  stop(): Promise<void>
}

interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
}

export async function serve(t: TestContext, options: SiteOptions = {}): Promise<Site> {
  const broker = options.broker ?? createBroker({ capacity: 1000, ...options.brokerOptions })
  const exchanges: Exchange[] = []
  const errors: unknown[] = []
  const handle = toNodeHandler(broker, { onError: (error) => errors.push(error), ...options.handler })
  const server = createServer(options.server ?? {}, (request, response) => {
    exchanges.push({ request, response })
    handle(request, response)
  })
  server.listen(options.port ?? 0, '127.0.0.1')
  await new Promise<void>((resolve, reject) => server.on('listening', resolve).on('error', reject))
  const { port } = server.address() as AddressInfo
  const stop = async () => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()))
    server.closeAllConnections()
    await closed
  }
  t.after(async () => {
    if (server.listening) await stop()
    if (!options.broker) await broker.close()
  })
  return { broker, port, url: `http://127.0.0.1:${port}`, server, exchanges, errors, stop }
}

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly text: string
  /** The body as JSON. */
  readonly json: Record<string, unknown>
}

export interface Question {
  method?: string
  headers?: Record<string, string>
  body?: string | Uint8Array
}

/** One request on a connection of its own, and its whole answer. */
export function ask({ port }: Pick<Site, 'port'>, path: string, question: Question = {}): Promise<Answer> {
  const { method = 'GET', headers = {}, body } = question
  return new Promise((resolve, reject) => {
    const outgoing = request({ host: '127.0.0.1', port, path, method, headers, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        text += chunk
      })
      response.on('error', reject)
      response.on('end', () => {
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          text,
          get json() {
            return JSON.parse(text) as Record<string, unknown>
          },
        })
      })
    })
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}

/** Publishes `body` as it stands, or a value as JSON. */
export function post(site: Pick<Site, 'port'>, body: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  const sent = typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body)
  const all = { 'content-type': 'application/json', ...headers }
  return ask(site, '/v1/events', { method: 'POST', headers: all, body: sent })
}

/** Waits until `condition` holds. Fails with `what` if it never does. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string | (() => string),
  ms: number = patience,
): Promise<void> {
  const deadline = performance.now() + ms
  while (!(await condition())) {
    if (performance.now() > deadline) {
      assert.fail(`Not within ${ms} ms: ${typeof what === 'string' ? what : what()}`)
    }
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
}

/** What came and was not yet asked for, for readers that ask and wait. */
export class Feed<T> {
  readonly #ready: T[] = []
  #waiting: ((value: T | undefined) => void) | undefined
  #ended = false

  push(value: T): void {
    if (this.#waiting) this.#settle(value)
    else this.#ready.push(value)
  }

  end(): void {
    this.#ended = true
    this.#settle(undefined)
  }

  get length(): number {
    return this.#ready.length
  }

  /** The next one; `undefined` at the end. Fails if neither comes. */
  next(what = 'another message'): Promise<T | undefined> {
    const ready = this.#ready.shift()
    if (ready !== undefined || this.#ended) return Promise.resolve(ready)
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`Not within ${patience} ms: ${what}`)), patience)
      this.#waiting = (value) => {
        clearTimeout(timer)
        resolve(value)
      }
    })
  }

  #settle(value: T | undefined): void {
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.(value)
  }
}

/** Runs `publish` for each of `indexes`, with the index as the payload. */
export async function publishIndexes(broker: Broker, first: number, last: number): Promise<void> {
  for (let index = first; index <= last; index++) {
    await broker.publish({ topic: 'Tick', type: 'Ticked', key: `k${index % 3}`, payload: index }, { index })
  }
}

/** All that can be seen of what a broker keeps: equal before and after a refusal. */
export function keptBy({ status }: Broker): Partial<StoredBatch> & Record<string, unknown> {
  const { epoch, oldestIndex, newestIndex, floor, retained, bytes } = status
  return { epoch, oldestIndex, newestIndex, floor, retained, bytes }
}
