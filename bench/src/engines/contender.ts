/** Where events are kept: JetStream with one node, with three, or PostgreSQL. */
export type EngineId = 'r1' | 'r3' | 'pg'

/** An engine that runs, and the stream or table in it that a measurement has for itself. */
export interface Site {
  readonly engine: EngineId
  readonly urls: readonly string[]
  readonly stream: string
}

/** One server's way to a stream that others may use beside it. */
export interface EngineStore {
  /** Stores events, and resolves with their places once they are acknowledged. Places ascend, with or without holes. */
  append(texts: readonly string[]): Promise<readonly number[]>
  /** Calls `take` with every event stored from the moment that this resolves, whoever stores it, in order. */
  follow?(take: (text: string) => void): Promise<void>
  /** Gives all that is stored, in order, with its place: as text, or as what a reader in the process gets. */
  replay(take: (event: unknown, place: number) => void): Promise<void>
  close(): Promise<void>
}

export interface EngineContender {
  readonly name: string
  readonly role: 'ours' | 'peer' | 'floor'
  /** It joins what many publishers append at once. Of the others, the caller makes groups. */
  readonly joins: boolean
  /** It can use what that contender has stored. Default: its own name. */
  readonly sharesWith?: string
  /** Makes the stream or table if there is none, and opens it. */
  open(site: Site): Promise<EngineStore>
}
