/** Records that one thread writes and that others read. */
export interface Stream {
  /** Bytes of the records, one after the other and then again: 1, 2, 4 or 8. */
  readonly sizes: readonly number[]
  readonly readers: number
  /** Bytes of a ring. */
  readonly ring: number
  /** Whether the writer stays at most `ahead` records before the slowest reader, so that nothing is lost. */
  readonly paced: boolean
  readonly ahead: number
  /** Whether readers compare all bytes, or length, number and first byte only. */
  readonly thorough: boolean
  /** Ends after so many records; 0: after the time. */
  readonly records: number
  /** Milliseconds before the measured ones, and those. */
  readonly warmup: number
  readonly ms: number
}

/** What a reader came to. `wrong`: records that were not what was written, or out of order. */
export interface Account {
  readonly got: number
  readonly lost: number
  readonly wrong: number
}

export interface Outcome {
  /** How many were written. */
  readonly records: number
  /** Records per second that reached the slowest reader, or were lost to it, after the warm-up. */
  readonly rate: number
  readonly accounts: readonly Account[]
}

/** Microseconds from before a record is written until its reader has it. */
export interface Delays {
  readonly p50: number
  readonly p99: number
}

/** A way from one thread to others. */
export interface ThreadContender {
  readonly name: string
  readonly role: 'ours' | 'peer' | 'floor'
  /** It keeps no more than a ring, and counts what it loses. */
  readonly loses: boolean
  /** Why it is not to be had here, if so. */
  missing?(): Promise<string | undefined>
  stream(stream: Stream): Promise<Outcome>
  /** One reader that sleeps; `count` records of `size` bytes, one each millisecond. */
  wake(count: number, size: number): Promise<Delays>
}
