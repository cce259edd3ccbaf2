/**
 * What publishers and readers of one log saw, and what of it breaks a promise.
 *
 * Kept        An acknowledged batch is in every reader's stream, at the index that was acknowledged, or in a gap that the
 *             reader was told.
 * Once        No batch is in a stream twice, whether its publisher was told of it or not.
 * Agreed      At one index all readers have the same batch, and it is what was published.
 * In order    Indexes grow within a stream. What was published after an acknowledgement has a larger index.
 * Tight       Nothing that a reader received is in a gap that it was told, and no reader is sent into another history.
 */
export class Observations {
  /** The content of each batch that a publisher began to publish. */
  readonly #published = new Map<string, string>()
  readonly #acks: { readonly publisher: string; readonly id: string; readonly index: number }[] = []
  readonly #refusals: string[] = []
  readonly #readers: ReaderRecord[] = []
  /** What was first seen at an index, for its readers to share. */
  readonly #sights = new Map<number, Sight>()
  #newest = 0

  /** The largest index that was acknowledged. */
  get newest(): number {
    return this.#newest
  }

  get acknowledgements(): number {
    return this.#acks.length
  }

  get readers(): readonly ReaderRecord[] {
    return this.#readers
  }

  /** A publisher begins to publish a batch. */
  publishing(id: string, content: string): void {
    this.#published.set(id, content)
  }

  /** A publisher was told the index of its batch, before it published its next one. */
  acknowledged(publisher: string, id: string, index: number): void {
    this.#acks.push({ publisher, id, index })
    this.#newest = Math.max(this.#newest, index)
  }

  /** A publisher was told that its batch is not taken, which nothing here gives a reason for. */
  refused(id: string, reason: string): void {
    this.#refusals.push(`${id} was refused: ${reason}`)
  }

  /** A reader whose stream begins after an index. Default: with the first batch. */
  reader(name: string, after = 0): ReaderRecord {
    const record = new ReaderRecord(name, after, this.#sights)
    this.#readers.push(record)
    return record
  }

  /** Every broken promise, in words. Each reader is judged up to where it has come. */
  violations(): string[] {
    return [
      ...this.#refusals,
      ...this.#acknowledgementsThatClash(),
      ...this.#readers.flatMap((reader) => [
        ...this.#streamOutOfOrder(reader),
        ...this.#wrongBatches(reader),
        ...this.#missing(reader),
        ...looseGaps(reader),
        ...reader.resets.map((text) => `${reader.name} was sent into another history: ${text}`),
      ]),
    ]
  }

  #acknowledgementsThatClash(): string[] {
    const found: string[] = []
    const indexes = new Map<string, number>()
    const ids = new Map<number, string>()
    const last = new Map<string, { id: string; index: number }>()
    for (const { publisher, id, index } of this.#acks) {
      const known = indexes.get(id)
      if (known !== undefined && known !== index) found.push(`${id} was acknowledged at ${known} and at ${index}`)
      const other = ids.get(index)
      if (other !== undefined && other !== id) found.push(`${other} and ${id} were both acknowledged at ${index}`)
      const before = last.get(publisher)
      if (before && before.id !== id && before.index >= index)
        found.push(`${id} was published after ${before.id} was acknowledged at ${before.index}, and got ${index}`)
      indexes.set(id, index)
      ids.set(index, id)
      last.set(publisher, { id, index })
    }
    return found
  }

  #streamOutOfOrder({ name, after, seen }: ReaderRecord): string[] {
    const found: string[] = []
    const places = new Map<string, number>()
    let last = after
    for (const { index, id } of seen) {
      if (index <= last) found.push(`${name} received ${index} after ${last}`)
      const place = places.get(id)
      if (place !== undefined) found.push(`${name} received ${id} twice, at ${place} and at ${index}`)
      places.set(id, index)
      last = index
    }
    return found
  }

  #wrongBatches({ name, seen }: ReaderRecord): string[] {
    const found: string[] = []
    for (const sight of seen) {
      const { index, id, content } = sight
      const published = this.#published.get(id)
      const first = this.#sights.get(index)
      if (published === undefined) found.push(`${name} received ${id} at ${index}, which nobody published`)
      else if (published !== content) found.push(`${name} received ${id} as ${content}, published was ${published}`)
      if (first && first.id !== id) found.push(`${name} has ${id} at ${index}, where another reader has ${first.id}`)
    }
    return found
  }

  #missing({ name, after, position, seen, gaps }: ReaderRecord): string[] {
    const received = new Map(seen.map(({ index, id }) => [index, id]))
    const isTold = (index: number) => gaps.some((gap) => gap.after < index && index < gap.before)
    const isOwed = (index: number) => index > after && index <= position && !isTold(index)
    const found: string[] = []
    const acknowledged = new Set<number>()
    for (const { id, index } of this.#acks) {
      acknowledged.add(index)
      const got = received.get(index)
      if (got === undefined && isOwed(index)) found.push(`${name} never received ${id}, acknowledged at ${index}`)
      if (got !== undefined && got !== id)
        found.push(`${name} received ${got} at ${index}, where ${id} was acknowledged`)
    }
    for (const { index, id } of this.#sights.values()) {
      if (acknowledged.has(index) || received.has(index) || !isOwed(index)) continue
      found.push(`${name} never received ${id} at ${index}, which another reader has`)
    }
    return found
  }
}

function looseGaps({ name, seen, gaps }: ReaderRecord): string[] {
  return gaps.flatMap(({ after, before }) =>
    seen
      .filter(({ index }) => after < index && index < before)
      .map(
        ({ index }) => `${name} was told that it lost what is between ${after} and ${before}, and received ${index}`,
      ),
  )
}

/** A batch as a reader received it. */
interface Sight {
  readonly index: number
  readonly id: string
  readonly content: string
}

/** What one reader received, across all connections that it had. */
export class ReaderRecord {
  readonly name: string
  readonly after: number
  readonly seen: Sight[] = []
  readonly gaps: { readonly after: number; readonly before: number }[] = []
  readonly resets: string[] = []
  readonly #sights: Map<number, Sight>
  #position: number

  constructor(name: string, after: number, sights: Map<number, Sight>) {
    this.name = name
    this.after = after
    this.#sights = sights
    this.#position = after
  }

  /** Up to which index the reader has received what there is, or was told that it is lost. */
  get position(): number {
    return this.#position
  }

  batch(index: number, id: string, content: string): void {
    const known = this.#sights.get(index)
    // Shared between readers, as long as they agree: there are many.
    const isSame = known?.id === id && known.content === content
    const sight = isSame ? known : { index, id, content }
    if (!known) this.#sights.set(index, sight)
    this.seen.push(sight)
    this.#position = Math.max(this.#position, index)
  }

  gap(after: number, before: number): void {
    this.gaps.push({ after, before })
    this.#position = Math.max(this.#position, before - 1)
  }

  /** It was told that its cursor belongs to another history. */
  reset(text: string): void {
    this.resets.push(text)
  }
}
