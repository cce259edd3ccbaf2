/** Who wants to be told of something. */
export class Listeners<T> {
  readonly #listeners = new Set<{ readonly tell: (value: T) => void }>()

  /** Gives back the undo. */
  add(tell: (value: T) => void): () => void {
    const listener = { tell }
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  tell(value: T): void {
    for (const { tell } of this.#listeners) tell(value)
  }
}
