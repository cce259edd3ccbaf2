import { batchEnd } from '../../core/batch-text.ts'
import type { Job, Outcome } from './writer.ts'

// How appends cross to the other thread: to copy a hundred small objects there and back takes longer than to store them.

/** Appends that are committed together. */
export interface Group {
  /** Their batches one behind the other, parted by `batchEnd`. */
  readonly text: string
  /** Of each append, what there is beside its texts; `null` for one batch and nothing else. */
  readonly rest: readonly (Rest | null)[]
}

interface Rest extends Pick<Job, 'key' | 'digest' | 'expected'> {
  /** The index and time that each batch was given. */
  readonly batches: readonly (readonly [number | undefined, number | undefined])[]
}

/** A number: the index of an append that was one batch. */
export type PackedOutcome = number | Outcome

export function packGroup(jobs: readonly Job[]): Group {
  const texts: string[] = []
  const rest = jobs.map(({ batches, key, digest, expected }) => {
    for (const { text } of batches) texts.push(text)
    const [{ index, time } = {}] = batches
    const isPlain = batches.length === 1 && (index ?? time ?? key ?? expected) === undefined
    return isPlain ? null : { key, digest, expected, batches: batches.map(({ index, time }) => [index, time] as const) }
  })
  return { text: texts.join(batchEnd), rest }
}

export function unpackGroup({ text, rest }: Group): Job[] {
  const texts = text.split(batchEnd)
  let next = 0
  const take = (): string => texts[next++] as string
  return rest.map((one) => {
    if (!one) return { batches: [{ text: take() }], key: undefined, digest: 0, expected: undefined }
    return { ...one, batches: one.batches.map(([index, time]) => ({ text: take(), index, time })) }
  })
}

export function packOutcomes(outcomes: readonly Outcome[]): PackedOutcome[] {
  return outcomes.map((outcome) => {
    const isPlain = 'indexes' in outcome && !outcome.duplicate && outcome.indexes.length === 1
    return isPlain ? (outcome.indexes[0] as number) : outcome
  })
}

export function unpackOutcome(packed: PackedOutcome): Outcome {
  return typeof packed === 'number' ? { indexes: [packed], duplicate: false } : packed
}
