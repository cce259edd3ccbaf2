/** What is published. An index grows with each event and may skip numbers. */
export interface BenchEvent {
  readonly index: number
  readonly payload?: unknown
}

/** Where readers put what they get. */
export interface Sink {
  /** How many events are still awaited. */
  readonly left: number
  take(event: BenchEvent): void
}

/**
 * One stream of one contender. Beside `publish`, it has the faces that the contender offers; each starts readers that
 * give what they get to a sink. Many readers are started by one call, so that the bytes of a reader are the contender's.
 */
export interface Stream {
  publish(event: BenchEvent): void
  /** Readers that are called back. */
  follow?(readers: number, sink: Sink): void
  /** Readers that wait in a loop, with `for await` or the contender's own way. */
  read?(readers: number, sink: Sink): void
  /** A reader that waits and can be cancelled. Settles when it has ended. */
  readUntil?(signal: AbortSignal, sink: Sink): Promise<unknown>
  /** A late reader that gets all that is kept; it may end when the sink awaits nothing more. */
  replay?(sink: Sink): void
  /** The index of the first kept event at or after `index`. */
  locate?(index: number): number
  /** Readers, given back so that they stay alive, that ask for one event and then never again. */
  stall?(readers: number): unknown
  /** Readers that want a key each, 0 to `readers` - 1. What is given back publishes one event for a key. */
  match?(readers: number, sink: Sink): (key: number) => void
}

export type Face = Exclude<keyof Stream, 'publish'>

/** `append` needs no reader. */
export type Need = Face | 'append'

export interface Contender {
  readonly name: string
  /** A floor does the least that could do the job, and is not required to do it well. */
  readonly kind: 'ours' | 'peer' | 'floor'
  /** The package whose version is reported. */
  readonly from?: string
  /** A stream that keeps the newest `capacity` events, where the contender can. */
  open(capacity: number): Stream | Promise<Stream>
}
