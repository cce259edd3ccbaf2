import { type BirpcReturn, createBirpc } from 'birpc'
import { type PlainSpillwayError, type Rights, SpillwayError } from 'spillway'
import type { Denial } from 'spillway/node'
import type { SharedLogHandle } from 'spillway/shared'
import type { LogFields } from '../log.ts'
import type { ListenOptions, SiteOptions } from '../site.ts'
import type { CertificatePair } from '../tls.ts'

/** What a thread that serves HTTP is made with. */
export interface ThreadData {
  readonly log: SharedLogHandle
  /** The other end of the port that the log's owner has. */
  readonly port: MessagePort
  /** By which it is told of the histories that come after that one, as {@link NextLog}. */
  readonly logs: MessagePort
  readonly buffer: {
    readonly capacity: number
    readonly maxBytes: number | undefined
    readonly maxAge: number | undefined
  }
  readonly site: SiteOptions
  readonly hasAuth: boolean
  readonly certificate: CertificatePair | undefined
  readonly connections: ConnectionCells
}

/** The log of another history. */
export type NextLog = Pick<ThreadData, 'log' | 'port'>

/** How many connections each thread has open, for all to see: a count that had to be asked for would come too late. */
export interface ConnectionCells {
  readonly cells: Int32Array
  readonly own: number
  readonly most: number
}

/** What a thread asks of the main one. */
export interface MainCalls {
  rightsOf(token: string): Promise<Rights>
  /** Gives the number of the place. */
  takePlace(address: string): Promise<number>
  namePlace(place: number, subject: string): Promise<void>
  freePlace(place: number): void
  takeEvents(publisher: string, events: number): Promise<void>
  issueTicket(token: string): Promise<string>
  redeemTicket(ticket: string): Promise<string | undefined>
  counts(): Promise<{ subscriptions: number; streams: number }>
  metrics(): Promise<string>
  problem(): Promise<string | undefined>
  tell(level: 'info' | 'warn' | 'error', message: string, fields: LogFields): void
  denied(denial: Denial): void
  failed(): void
  badRequest(): void
}

/** What the main thread asks of one that serves HTTP. */
export interface ThreadCalls {
  listen(options: ListenOptions): Promise<number>
  subscriptions(): number
  replaceCertificate(pair: CertificatePair): void
  close(grace: number): Promise<void>
}

/** What is told and needs no answer. */
const events: (keyof MainCalls)[] = ['freePlace', 'tell', 'denied', 'failed', 'badRequest']

interface Port {
  postMessage(message: unknown): void
  on(event: 'message', listener: (message: unknown) => void): unknown
}

/** What `serve` answers the other end of `port`, and how to ask it. Errors keep their codes. */
export function connect<Remote extends object, Local extends object>(
  port: Port,
  local: Local,
): BirpcReturn<Remote, Local> {
  return createBirpc<Remote, Local>(local, {
    post: (message) => port.postMessage(message),
    on: (listener) => port.on('message', listener),
    serialize: (message) => ('e' in message ? { ...message, e: plainError(message.e) } : message),
    deserialize: (message) => {
      const plain = (message.e as { plain?: PlainSpillwayError } | undefined)?.plain
      return plain ? { ...message, e: SpillwayError.from(plain) } : message
    },
    eventNames: events as never,
    // An answer that cannot be cloned becomes the error that says so; what a call was refused with, it is rejected with.
    onGeneralError: (_error, asked) => asked !== undefined,
    // Rights may take as long as whoever knows them needs.
    timeout: -1,
  })
}

/** An error as structured cloning takes it, whatever hangs on it. */
function plainError(error: unknown): unknown {
  if (error instanceof SpillwayError) return { plain: error.toJSON() }
  return new Error(error instanceof Error ? error.message : String(error))
}
