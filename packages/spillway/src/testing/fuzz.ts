import { type ErrorCode, SpillwayError } from '../core/errors.ts'
import { Mutator } from './mutator.ts'
import { Random } from './random.ts'

/** A parser, what it may be given and what must hold. */
export interface FuzzTarget {
  readonly name: string
  /** Inputs that the parser takes, or nearly takes: what is tried is made of them. */
  readonly corpus: readonly string[]
  /** Words of its language, put in anywhere. */
  readonly dictionary?: readonly string[]
  /** Of the runs of all targets, relative to the others. Default 1; less for a slow one. */
  readonly share?: number
  /** One run. What it throws is a failure. `random` decides what else there is to decide, so that a seed repeats it. */
  readonly run: (input: string, random: Random) => void
}

/** An input that broke a promise. `run` counts from 0; the same seed comes to it again. */
export interface FuzzFailure {
  readonly run: number
  readonly input: string
  readonly error: unknown
}

export interface FuzzResult {
  readonly runs: number
  readonly seconds: number
  /** Milliseconds of the longest run. */
  readonly slowest: number
  /** The first few. */
  readonly failures: readonly FuzzFailure[]
}

/** A run of this many milliseconds is a failure: no input is as long as that. */
const hang = 2_000
const enough = 10

/** Runs `target` on `runs` inputs made from `seed`. Ends early after ten failures. */
export function fuzz(target: FuzzTarget, runs: number, seed: number): FuzzResult {
  const random = new Random(seed)
  const mutator = new Mutator(random, target.corpus, target.dictionary ?? [])
  const failures: FuzzFailure[] = []
  const began = performance.now()
  let slowest = 0
  let last = began
  let run = 0
  while (run < runs && failures.length < enough) {
    const input = mutator.next()
    try {
      target.run(input, random)
    } catch (error) {
      failures.push({ run, input, error })
    }
    const now = performance.now()
    slowest = Math.max(slowest, now - last)
    if (now - last > hang) failures.push({ run, input, error: new Error(`It took ${Math.round(now - last)} ms.`) })
    last = now
    run++
  }
  return { runs: run, seconds: (performance.now() - began) / 1000, slowest, failures }
}

/** What `work` returns, or `undefined` if it refuses its input with one of `codes`. Anything else that it throws goes on. */
export function unlessRefused<Value>(work: () => Value, ...codes: readonly ErrorCode[]): Value | undefined {
  try {
    return work()
  } catch (error) {
    if (error instanceof SpillwayError && codes.includes(error.code)) return undefined
    throw error
  }
}
