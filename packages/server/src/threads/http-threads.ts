import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'
import type { BirpcReturn } from 'birpc'
import { type Broker, SpillwayError } from 'spillway'
import { createHandlerState, type HandlerState, type Place } from 'spillway/node'
import type { SharedLog } from 'spillway/shared'
import type { Authenticator } from '../auth/authenticator.ts'
import type { ServerLog } from '../log.ts'
import type { Metrics, ThreadCounts } from '../metrics.ts'
import type { ListenOptions, NextHistory, Site, SiteOptions, SiteParts } from '../site.ts'
import type { Certificate } from '../tls.ts'
import { connect, type MainCalls, type NextLog, type ThreadCalls, type ThreadData } from './calls.ts'

export interface HttpThreadsParts {
  readonly broker: Broker
  /** The log of `broker`. */
  readonly history: SharedLog
  readonly auth: Authenticator | undefined
  readonly certificate: Certificate | undefined
  readonly metrics: Metrics
  readonly problem: SiteParts['problem']
  readonly log: ServerLog
  /** Connections that all threads together may have open. */
  readonly maxConnections: number
  readonly buffer: ThreadData['buffer']
}

/** A thread that ends within so many milliseconds is replaced later and later, up to the second number. */
const [healthyAfter, longestPause] = [10_000, 5000]
const shortestPause = 50
/** Milliseconds beyond its grace that a thread may take to close. */
const hungAfter = 1000
/** Milliseconds that a thread has to say what it has open. */
const countPatience = 500

/** One thread, and what it has taken. */
interface Running {
  readonly worker: Worker
  /** By which it gets the logs of later histories. */
  readonly logs: MessagePort
  readonly calls: BirpcReturn<ThreadCalls, MainCalls>
  readonly places: Places
  readonly startedAt: number
  /** When it was asked last. */
  subscriptions: number
}

/** What a thread has taken, until it ends. */
interface Places {
  readonly byNumber: Map<number, Place>
  isOver: boolean
}

/**
 * Threads that serve HTTP on one port. One that dies is replaced: its readers come back and resume, to whichever thread the
 * kernel gives them; what was published meanwhile is in the log, which this thread owns.
 */
export class HttpThreads implements Site {
  #parts: HttpThreadsParts
  readonly #options: SiteOptions
  readonly #state: HandlerState
  readonly #cells: Int32Array
  /** By number; `undefined` while one is being replaced. */
  readonly #running: (Running | undefined)[]
  readonly #stopListening: (() => void) | undefined
  #where: ListenOptions | undefined
  #lastPlace = 0
  #pauses: number[]
  #closed: Promise<void> | undefined

  /** Throws the library's `CONFIG` for a bad option. */
  constructor(threads: number, parts: HttpThreadsParts, options: SiteOptions) {
    this.#parts = parts
    this.#options = options
    this.#state = createHandlerState(parts.broker, options)
    this.#cells = new Int32Array(new SharedArrayBuffer(threads * 4))
    this.#running = new Array<undefined>(threads).fill(undefined)
    this.#pauses = new Array<number>(threads).fill(0)
    this.#stopListening = parts.certificate?.onChange((pair) => {
      for (const running of this.#running) running?.calls.replaceCertificate(pair).catch(ignore)
    })
  }

  /** The threads that run. */
  get workers(): readonly Worker[] {
    return this.#running.flatMap((running) => running?.worker ?? [])
  }

  async listen({ port, host }: ListenOptions): Promise<AddressInfo> {
    if (this.#where) throw new SpillwayError('CONFIG', 'The server listens already.')
    // Whoever shares a port shares it with anybody of the same user: a second server would take half of the readers.
    const address = await freeAddress(port, host)
    this.#where = { port: address.port, host, isShared: this.#running.length > 1 }
    try {
      await Promise.all(this.#running.map((_, number) => this.#start(number)))
    } catch (error) {
      await Promise.all(this.workers.map((worker) => worker.terminate()))
      this.#where = undefined
      throw error
    }
    return address
  }

  serve({ broker, shared }: NextHistory): void {
    if (this.#closed) return void broker.close()
    const history = shared as SharedLog
    this.#parts = { ...this.#parts, broker, history }
    for (const running of this.#running) {
      if (!running) continue
      const { port1, port2 } = new MessageChannel()
      const next: NextLog = { log: history.connect(port1), port: port2 }
      running.logs.postMessage(next, [port2])
    }
  }

  close(grace: number): Promise<void> {
    this.#closed ??= this.#shutDown(grace)
    return this.#closed
  }

  /** What the threads have open, each. */
  counts(): Promise<ThreadCounts[]> {
    return Promise.all(
      this.#running.map(async (running) => ({
        subscriptions: await this.#subscriptionsOf(running),
        streams: running?.places.byNumber.size ?? 0,
      })),
    )
  }

  /** A thread that is too busy to say so has as many as when it was asked last. */
  async #subscriptionsOf(running: Running | undefined): Promise<number> {
    if (!running) return 0
    const patience = delay(countPatience, running.subscriptions, { ref: false })
    const asked = running.calls.subscriptions().then(
      (count) => (running.subscriptions = count),
      () => 0,
    )
    return Promise.race([asked, patience])
  }

  async #shutDown(grace: number): Promise<void> {
    this.#stopListening?.()
    const running = this.#running.flatMap((one) => one ?? [])
    // A thread that hangs does not answer.
    const patience = delay(grace + hungAfter, undefined, { ref: false })
    await Promise.race([Promise.all(running.map(({ calls }) => calls.close(grace).catch(ignore))), patience])
    await Promise.all(running.map(({ worker }) => worker.terminate()))
    await this.#parts.broker.close()
  }

  /** Resolves once it listens; rejects with why it cannot. */
  async #start(number: number): Promise<void> {
    const { history, certificate, auth, maxConnections, buffer, log } = this.#parts
    const { port1, port2 } = new MessageChannel()
    const logs = new MessageChannel()
    const data: ThreadData = {
      log: history.connect(port1),
      port: port2,
      logs: logs.port2,
      buffer,
      site: this.#options,
      hasAuth: auth !== undefined,
      certificate: certificate?.current,
      connections: { cells: this.#cells, own: number, most: maxConnections },
    }
    Atomics.store(this.#cells, number, 0)
    const worker = new Worker(new URL('./http-thread.js', import.meta.url), {
      name: `http ${number + 1}`,
      workerData: data,
      transferList: [port2, logs.port2],
    })
    const places: Places = { byNumber: new Map(), isOver: false }
    const calls = connect<ThreadCalls, MainCalls>(worker, this.#callsFor(places))
    const running: Running = { worker, logs: logs.port1, calls, places, startedAt: performance.now(), subscriptions: 0 }
    this.#running[number] = running
    let failure: unknown
    worker.on('error', (error) => {
      failure = error
    })
    const ended = new Promise<never>((_, reject) => {
      worker.once('exit', (code) => {
        const error = failure ?? new Error(`It ended with code ${code}.`)
        calls.$close(error as Error)
        logs.port1.close()
        places.isOver = true
        for (const place of places.byNumber.values()) place.free()
        places.byNumber.clear()
        this.#running[number] = undefined
        reject(error)
      })
    })
    ended.catch(ignore)
    await Promise.race([calls.listen(this.#where as ListenOptions), ended])
    ended.catch((error: unknown) => {
      if (this.#closed || !this.#where) return
      log.error(`HTTP thread ${number + 1} has ended and is replaced`, { error })
      void this.#replace(number, running.startedAt)
    })
  }

  async #replace(number: number, startedAt: number): Promise<void> {
    const isHealthy = performance.now() - startedAt > healthyAfter
    const pause = isHealthy ? 0 : Math.min(longestPause, Math.max(shortestPause, (this.#pauses[number] ?? 0) * 2))
    this.#pauses[number] = pause
    const begunAt = performance.now()
    // Connections that come meanwhile go to the other threads.
    await delay(pause, undefined, { ref: false })
    if (this.#closed) return
    try {
      await this.#start(number)
      this.#parts.log.info(`HTTP thread ${number + 1} serves again`)
    } catch (error) {
      if (this.#closed) return
      this.#parts.log.error(`HTTP thread ${number + 1} could not be replaced`, { error })
      await this.#running[number]?.worker.terminate()
      void this.#replace(number, begunAt)
    }
  }

  #callsFor(places: Places): MainCalls {
    const { auth, log, metrics, problem } = this.#parts
    const state = this.#state
    return {
      rightsOf: async (token) => {
        if (!auth) throw new SpillwayError('INTERNAL', 'There is no access control.')
        return auth.rightsOf(token)
      },
      takePlace: async (address) => {
        const place = await state.takePlace(address)
        if (places.isOver) place.free()
        else places.byNumber.set(++this.#lastPlace, place)
        return this.#lastPlace
      },
      namePlace: async (number, subject) => places.byNumber.get(number)?.for(subject),
      freePlace: (number) => {
        places.byNumber.get(number)?.free()
        places.byNumber.delete(number)
      },
      takeEvents: async (publisher, events) => state.takeEvents(publisher, events),
      issueTicket: async (token) => state.issueTicket(token),
      redeemTicket: async (ticket) => state.redeemTicket(ticket),
      counts: async () => sum(await this.counts()),
      metrics: async () => metrics.text(this.#parts.broker.status, await this.counts()),
      problem: async () => problem(),
      tell: (level, message, fields) => log[level](message, fields),
      denied: (denial) => metrics.denied(denial),
      failed: () => metrics.failed(),
      badRequest: () => metrics.badRequest(),
    }
  }
}

function sum(threads: readonly ThreadCounts[]): ThreadCounts {
  const of = (what: keyof ThreadCounts) => threads.reduce((total, thread) => total + thread[what], 0)
  return { subscriptions: of('subscriptions'), streams: of('streams') }
}

/** Whether several threads of a process can listen on one port here. */
export async function canSharePort(): Promise<boolean> {
  try {
    await listenBriefly({ port: 0, host: '127.0.0.1', reusePort: true })
    return true
  } catch {
    return false
  }
}

/** An address that nobody listens on. Rejects as listening there does. */
function freeAddress(port: number, host: string): Promise<AddressInfo> {
  return listenBriefly({ port, host, reusePort: false })
}

async function listenBriefly(options: { port: number; host: string; reusePort: boolean }): Promise<AddressInfo> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options, resolve)
  })
  const address = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return address
}

function ignore(): undefined {
  return undefined
}
