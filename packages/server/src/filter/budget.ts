/** Units that one event may cost one filter. A unit is about one step of the expression, 0.1 to 0.2 microseconds here. */
export const eventBudget = 1_000

/**
 * What an evaluation may still cost. The size of an expression is limited where it is compiled; what loops, texts, lists
 * and patterns make of it depends on payloads, and is counted here before it is done.
 */
export class Budget {
  #left = 0

  /** For a new event. */
  start(): void {
    this.#left = eventBudget
  }

  /** What was spent since the start. */
  get spent(): number {
    return eventBudget - this.#left
  }

  /** Throws when there is not so much left, then and ever after. */
  spend(units: number): void {
    this.#left -= units
    if (this.#left < 0) throw new Error('The filter costs too much for this event.')
  }
}

/** That of the filter which is being evaluated. Evaluation is synchronous, so that there is one at a time. */
export const budget: Budget = new Budget()
