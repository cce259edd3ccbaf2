import type { AddressInfo } from 'node:net'
import { type Broker, type BrokerOptions, createBroker, type Log, memoryLog, SpillwayError } from 'spillway'
import { type SharedLog, shareLog } from 'spillway/shared'
import type { Authenticator } from './auth/authenticator.ts'
import type { Engine } from './engine/engine.ts'
import { type HostSource, startHostSource } from './host-source.ts'
import { type ServerLog, silentLog } from './log.ts'
import { Metrics } from './metrics.ts'
import { createSite, type Site, type SiteOptions } from './site.ts'
import { canSharePort, HttpThreads } from './threads/http-threads.ts'
import type { Certificate } from './tls.ts'

export interface ServerOptions extends Pick<BrokerOptions, 'capacity' | 'maxBytes' | 'maxAge'>, SiteOptions {
  /** Where history is kept. Default: in memory, with the limits of this server. Closed with the server. */
  history?: Log | undefined
  /**
   * What keeps the history, for this server and others, instead of `history`. Where it is given another one, readers are told
   * to come back, and find that. Closed with the server.
   */
  engine?: Engine | undefined
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
  /**
   * Threads that serve HTTP beside the one that publishes, 0 to 64; each keeps as much in memory as `capacity` and `maxBytes`
   * say. More than one need a system on which they can share a port, as Linux is: elsewhere there is one, and the log says so.
   * Default 0: the thread that publishes serves, too.
   */
  threads?: number | undefined
  /** Where events come from beside publishers. `host`: the counters of this machine, once a second. Default `none`. */
  source?: 'host' | 'none'
  /** Also the audit log: who was denied, and whose streams were ended. Default: silent. */
  log?: ServerLog
}

/** A broker, its HTTP faces and the page that shows it, on one port. */
export interface SpillwayServer {
  /** Of the history that is served now. */
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
const defaultBytes = 64 * 2 ** 20
const mostThreads = 64
/** How much of the time to close an engine has to answer. */
const patientShare = 0.75

/** What serves one history. */
interface Served {
  readonly broker: Broker
  /** The log of `broker`, where other threads have it, too. */
  readonly shared: SharedLog | undefined
}

/** Throws the library's `CONFIG` for a bad option. */
export function createServer({
  capacity = defaultCapacity,
  maxBytes = defaultBytes,
  maxAge,
  history,
  engine,
  auth,
  certificate,
  maxConnections = defaultConnections,
  threads = 0,
  source = 'none',
  log = silentLog,
  ...options
}: ServerOptions = {}): SpillwayServer {
  if (!Number.isInteger(threads) || threads < 0 || threads > mostThreads) {
    throw new SpillwayError('CONFIG', `threads must be an integer from 0 to ${mostThreads}, got ${threads}.`)
  }
  const metrics = new Metrics(engine)
  const buffer = { capacity, maxBytes, maxAge }
  const rightsOf = auth && ((token: string) => auth.rightsOf(token))
  const begin = (log: Log | undefined): Served => {
    const shared = threads > 0 ? shareLog(log ?? memoryLog(buffer)) : undefined
    const authorize: BrokerOptions['authorize'] = rightsOf && (({ token }) => rightsOf(token))
    return { shared, broker: createBroker({ ...buffer, log: shared ?? log, authorize }) }
  }
  let served = begin(engine?.log ?? history)
  const stopListening = auth?.onChange((subject) => served.broker.recheck(subject))
  /** Why nothing can be published, where that is known. */
  let trouble: string | undefined
  const problem = () => trouble ?? (engine && !engine.state.isConnected ? 'The engine does not answer.' : undefined)
  const here = createSite(
    {
      broker: served.broker,
      rightsOf,
      certificate,
      state: undefined,
      admit: admission(maxConnections),
      counted: metrics,
      metrics: () => metrics.text(served.broker.status),
      problem,
      log,
    },
    options,
  )
  let site: Site = here
  let host: HostSource | undefined
  let closed: Promise<void> | undefined
  let stopRenewing: () => void = () => {}
  const stopped = new Promise<undefined>((resolve) => {
    stopRenewing = () => resolve(undefined)
  })

  const inThreads = async (history: SharedLog): Promise<HttpThreads> => {
    const canBeMany = threads === 1 || (await canSharePort())
    if (!canBeMany) log.warn('Threads cannot share a port on this system: one thread serves HTTP', { threads: 1 })
    const parts = { broker: served.broker, history, auth, certificate, metrics, problem, log, maxConnections, buffer }
    return new HttpThreads(canBeMany ? threads : 1, parts, options)
  }

  /** Serves the next history whenever one is over. */
  const renew = async (engine: Engine) => {
    for (let { log: current } = engine; ; ) {
      const reason = await Promise.race([current.ended, stopped])
      if (!reason) return
      trouble = 'The history has ended, and the next one is not there yet.'
      log.warn('This history has ended: readers are told to come back', { epoch: current.epoch, error: reason })
      await served.broker.close()
      const next = await Promise.race([engine.reopen().catch(() => undefined), stopped])
      if (!next) return
      current = next
      served = begin(next)
      site.serve(served)
      trouble = undefined
      log.info('Another history is served', { epoch: next.epoch })
    }
  }
  const renewing = engine && renew(engine)

  const shutDown = async (grace: number) => {
    stopListening?.()
    stopRenewing()
    metrics.close()
    await host?.stop()
    // What waits for an engine that is away is told that nobody knows, while it can still be told.
    const giveUp = engine && setTimeout(() => void engine.close(), grace * patientShare)
    await site.close(grace)
    clearTimeout(giveUp)
    await Promise.all([auth?.close(), certificate?.close(), engine?.close(), renewing])
  }

  return {
    get broker() {
      return served.broker
    },
    async listen({ port = 0, host: address = '127.0.0.1' } = {}) {
      if (served.shared && site === here) site = await inThreads(served.shared)
      const where = await site.listen({ port, host: address })
      if (source === 'host') host = startHostSource({ publish: (events) => served.broker.publish(events), log })
      return urlOf(certificate ? 'https' : 'http', where)
    },
    close({ grace = defaultGrace } = {}) {
      closed ??= shutDown(grace)
      return closed
    },
  }
}

/** Lets in as many connections as may be open at once. */
function admission(most: number): () => (() => void) | undefined {
  let open = 0
  const left = () => {
    open--
  }
  return () => {
    if (open >= most) return undefined
    open++
    return left
  }
}

function urlOf(scheme: 'http' | 'https', { address, family, port }: AddressInfo): string {
  return `${scheme}://${family === 'IPv6' ? `[${address}]` : address}:${port}`
}
