import type { StoredBatch } from './event.ts'

interface Follower {
  readonly listener: (batch: StoredBatch) => void
  /** The newest index when it came: it is told of what follows. */
  readonly after: number
}

/** Who is told of what a log stores: each of every batch, in order, also when one of them appends meanwhile. */
export class Followers {
  readonly #all = new Set<Follower>()
  #untold: StoredBatch[] = []
  #telling = false

  /** Gives back the undo. */
  add(listener: (batch: StoredBatch) => void, after: number): () => void {
    const follower = { listener, after }
    this.#all.add(follower)
    return () => this.#all.delete(follower)
  }

  tell(batches: readonly StoredBatch[]): void {
    for (const batch of batches) this.#untold.push(batch)
    if (this.#telling) return
    this.#telling = true
    for (const batch of this.#untold) {
      for (const { listener, after } of this.#all) {
        if (batch.index <= after) continue
        try {
          listener(batch)
        } catch (error) {
          // It is stored: a listener's mistake must reach its author, not the publisher.
          void Promise.reject(error)
        }
      }
    }
    this.#untold = []
    this.#telling = false
  }
}
