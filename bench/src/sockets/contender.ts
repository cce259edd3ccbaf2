/** What a contender's program offers the benchmark. */
export interface SocketServer {
  readonly port: number
  /** How many streams would get the next event. */
  readers(): number | Promise<number>
  /** Sends these events, numbered from `first`, in this very turn of the event loop. */
  publish(events: readonly string[], first: number): void
  /** The process that does the work, if it is not this one. */
  readonly pid?: number
}

/** How the load client speaks to a contender. */
export interface Face {
  /** `http`: a response with status 200. `raw`: bytes. `h2`: HTTP/2, `streams` on each connection. */
  readonly mode: 'http' | 'raw' | 'h2'
  readonly streams?: number
  /** What each connection sends once. */
  readonly request: string | Buffer
  /** What ends the part of the answer that comes before the events. */
  readonly ready: string
}

export interface SocketContender {
  readonly name: string
  readonly role: 'ours' | 'peer' | 'floor'
  /** The package whose version is reported. */
  readonly from?: string
  readonly face: Face
  /** The program of Debian that it needs. */
  readonly needs?: string
  /** Whether it is one that must be compiled first. */
  readonly native?: boolean
  /** Loads its server, in the process that is to be measured. */
  load(): Promise<() => Promise<SocketServer>>
}
