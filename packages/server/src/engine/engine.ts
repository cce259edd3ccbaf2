import type { Log } from 'spillway'

/** A log that others may end: its engine was given another history, or lost this one. */
export interface EngineLog extends Log {
  /** Resolves with the reason once it is over though nobody here closed it. */
  readonly ended: Promise<Error>
}

/** What load balancers and those who scrape are told. */
export interface EngineState {
  /** Whether it answers at present, as far as is known. */
  readonly isConnected: boolean
  /** How often it came back. */
  readonly reconnects: number
}

/** What keeps the history of several servers on machines of its own. It may go away and come back, and have another history then. */
export interface Engine {
  /** Where it is, for people: without secrets. */
  readonly place: string
  readonly state: EngineState
  /** The history that was opened last. */
  readonly log: EngineLog
  /** Opens the history that it has now, however long that takes. Rejects only once the engine was closed. */
  reopen(): Promise<EngineLog>
  /** Lets go of it; what still waits for it is told so. Harmless when done twice. */
  close(): Promise<void>
}
