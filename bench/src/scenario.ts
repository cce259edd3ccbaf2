import type { Need, Stream } from './contender.ts'

export type Unit = 'ns' | 'us' | 'ms' | 'B' | 'kB' | 'MB' | '/s' | '%'

export interface Measured {
  readonly value: number
  /** What else was seen, for the raw results. */
  readonly extra?: Readonly<Record<string, number | string>>
}

export interface Scenario {
  readonly id: string
  readonly title: string
  readonly unit: Unit
  /** The face that it uses and that conformance must have passed. */
  readonly needs: Need
  readonly contenders: readonly string[]
  /** Measures for about `ms` milliseconds after a warm-up. `open` gives a fresh stream of the contender. */
  measure(open: (capacity: number) => Promise<Stream>, ms: number): Promise<Measured>
}
