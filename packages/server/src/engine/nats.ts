import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import {
  type Authenticator,
  connect,
  credsAuthenticator,
  type NatsConnection,
  nkeyAuthenticator,
} from '@nats-io/transport-node'
import { SpillwayError } from 'spillway'
import { type JetStreamLog, type JetStreamLogOptions, jetstreamLog } from 'spillway/log/jetstream'
import { reasons, type ServerLog } from '../log.ts'
import type { Engine, EngineState } from './engine.ts'
import { type NatsPlace, natsPlace } from './place.ts'

export interface NatsOptions extends Omit<JetStreamLogOptions, 'connection' | 'clock'> {
  /** `nats://host:4222`, several joined by commas, `tls://` to encrypt; may hold `user:password@` or `token@`. */
  url: string
  /** A file of credentials, as `nsc` makes it, or of a seed (nkey). Read again whenever it is shown. */
  creds?: string | undefined
  log: ServerLog
}

/** Milliseconds that an engine which does not answer has at the start. */
const startPatience = 10_000
const [shortestPause, longestPause] = [250, 5000]
/** Milliseconds that one attempt to connect may take. */
const dialMs = 5000
/** Two signs of life that are not answered end a connection: a partition says nothing of itself. */
const pingMs = 2000
const mostPings = 2
/** How long a node may not reach the stream before another is tried, in milliseconds: an election takes less. */
const nodePatience = 8000
/** How long the next one has then. */
const nextPatience = 3000

/**
 * Opens a history in JetStream over a connection that comes back by itself. Rejects with `CONFIG` for a bad option,
 * `LOG_UNUSABLE` for an engine or a stream that is not fit, `UNAUTHORIZED` for credentials that are refused, and `LOG_FAILED`
 * for an engine that does not answer within 10 seconds.
 */
export async function openNats({ url, creds, log, ...wanted }: NatsOptions): Promise<Engine> {
  const place = natsPlace(url)
  const engine = new NatsEngine(place, { authenticator: creds === undefined ? undefined : credsOf(creds), wanted, log })
  await engine.start()
  return engine
}

/** Opens a connection that comes back for as long as it is not closed. Rejects with `UNAUTHORIZED` or `LOG_FAILED`. */
export async function connectNats(place: NatsPlace, authenticator: Authenticator | undefined): Promise<NatsConnection> {
  try {
    return await connect({
      servers: [...place.servers],
      name: 'spillway',
      timeout: dialMs,
      maxReconnectAttempts: -1,
      reconnectTimeWait: shortestPause,
      reconnectJitter: shortestPause,
      reconnectJitterTLS: shortestPause,
      pingInterval: pingMs,
      maxPingOut: mostPings,
      // Credentials may be corrected while it waits.
      ignoreAuthErrorAbort: true,
      ...(place.isEncrypted && { tls: {} }),
      ...(authenticator && { authenticator }),
      ...(place.user !== undefined && { user: place.user, pass: place.password ?? '' }),
      ...(place.token !== undefined && { token: place.token }),
    })
  } catch (cause) {
    const { name } = cause as Error
    if (name === 'AuthorizationError' || name === 'UserAuthenticationExpiredError') {
      throw new SpillwayError('UNAUTHORIZED', `The engine at ${place.shown} refuses these credentials.`, { cause })
    }
    throw new SpillwayError('LOG_FAILED', `No nats-server answers at ${place.shown}.`, { cause })
  }
}

/** What `file` holds, read anew for each connection. Throws `CONFIG` if it holds no credentials. */
export function credsOf(file: string): Authenticator {
  let known: Authenticator | undefined
  const read = () => {
    known = parseCreds(file)
    return known
  }
  read()
  return (nonce) => {
    try {
      return read()(nonce)
    } catch (error) {
      // It may be about to be replaced; to fail here would end the connection for good.
      if (known) return known(nonce)
      throw error
    }
  }
}

function parseCreds(file: string): Authenticator {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (cause) {
    throw new SpillwayError('CONFIG', `--log-creds ${file} cannot be read: ${(cause as Error).message}.`, { cause })
  }
  const seed = /(?:^|\s)(SU[A-Z2-7]{56})(?:\s|$)/.exec(text)?.[1]
  if (seed === undefined) {
    throw new SpillwayError('CONFIG', `--log-creds ${file} holds neither credentials of NATS nor the seed of a user.`)
  }
  const bytes = new TextEncoder().encode(text.includes('BEGIN NATS USER JWT') ? text : seed)
  return text.includes('BEGIN NATS USER JWT') ? credsAuthenticator(bytes) : nkeyAuthenticator(bytes)
}

interface NatsEngineParts {
  readonly authenticator: Authenticator | undefined
  readonly wanted: Omit<JetStreamLogOptions, 'connection'>
  readonly log: ServerLog
}

class NatsEngine implements Engine {
  readonly place: string
  readonly #place: NatsPlace
  readonly #parts: NatsEngineParts
  #connection: NatsConnection | undefined
  #history: JetStreamLog | undefined
  #isAway = false
  /** The node that is being left. */
  #left: string | undefined
  #reconnects = 0
  readonly #closing = new AbortController()

  constructor(place: NatsPlace, parts: NatsEngineParts) {
    this.#place = place
    this.#parts = parts
    this.place = `stream ${parts.wanted.stream} at ${place.shown}`
  }

  get state(): EngineState {
    const answers = !this.#isAway && this.#connection?.isClosed() === false && this.#history?.failure === undefined
    return { isConnected: answers, reconnects: this.#reconnects }
  }

  get log(): JetStreamLog {
    if (!this.#history) throw new Error('It was not started.')
    return this.#history
  }

  /** Waits some seconds for an engine that does not answer. */
  async start(): Promise<void> {
    const until = performance.now() + startPatience
    try {
      await this.#open((error) => isPassing(error) && performance.now() < until)
    } catch (error) {
      await this.close()
      throw error
    }
    this.#leaveDeadEnds()
  }

  reopen(): Promise<JetStreamLog> {
    return this.#open(() => true)
  }

  async close(): Promise<void> {
    this.#closing.abort()
    await this.#connection?.close()
  }

  async #open(mayWait: (error: unknown) => boolean): Promise<JetStreamLog> {
    const { log, wanted } = this.#parts
    let said = ''
    for (let pause = shortestPause; ; pause = Math.min(pause * 2, longestPause)) {
      try {
        const connection = await this.#connect()
        this.#history = await jetstreamLog({ ...wanted, connection })
        return this.#history
      } catch (error) {
        if (this.#closing.signal.aborted || !mayWait(error)) throw error
        const problem = reasons(error)
        if (problem !== said) log.warn('The log cannot be opened yet, it is tried again', { error })
        said = problem
      }
      // Servers that lost one engine must not all come back at one moment.
      await delay(pause * (0.5 + Math.random()), undefined, { signal: this.#closing.signal })
    }
  }

  async #connect(): Promise<NatsConnection> {
    if (this.#connection?.isClosed() === false) return this.#connection
    const connection = await connectNats(this.#place, this.#parts.authenticator)
    if (this.#closing.signal.aborted) {
      await connection.close()
      throw new SpillwayError('CLOSED', 'The engine was closed.')
    }
    this.#connection = connection
    this.#isAway = false
    void this.#watch(connection)
    return connection
  }

  /** A node that is cut from the others still answers its clients' signs of life, and can store nothing. */
  #leaveDeadEnds(): void {
    let deadline: number | undefined
    const timer = setInterval(() => {
      const now = performance.now()
      if (this.#isAway) return
      if (this.#history?.failure === undefined) deadline = undefined
      else deadline ??= now + nodePatience
      if (deadline === undefined || now < deadline) return
      deadline = now + nextPatience
      this.#parts.log.warn('This node of the engine does not reach the stream, another one is tried')
      this.#left = this.#connection?.getServer()
      this.#connection?.reconnect().catch(() => {})
    }, 1000)
    timer.unref()
    this.#closing.signal.addEventListener('abort', () => clearInterval(timer))
  }

  /** Tells the operator that the engine went and came back, once each. */
  async #watch(connection: NatsConnection): Promise<void> {
    const { log } = this.#parts
    let refusal = ''
    for await (const status of connection.status()) {
      if (this.#closing.signal.aborted) return
      if (status.type === 'disconnect' && !this.#isAway) {
        this.#isAway = true
        refusal = ''
        log.warn(`The engine is away: publishing waits for it, readers stay connected`, { server: status.server })
      }
      if (status.type === 'error' && status.error.message !== refusal) {
        refusal = status.error.message
        log.warn('The engine refuses', { error: status.error })
      }
      if (status.type !== 'reconnect') continue
      const left = this.#left
      this.#left = undefined
      // The client tries the node that it was given first once more.
      if (status.server === left) connection.reconnect().catch(() => {})
      else if (this.#isAway) {
        this.#isAway = false
        this.#reconnects++
        log.info('The engine is back', { server: status.server })
      }
    }
  }
}

function isPassing(error: unknown): boolean {
  return error instanceof SpillwayError && error.code === 'LOG_FAILED'
}
