/**
 * The storage of the buffer: values in order of arrival, each at a place (1, 2, 3, ...) with its index, time and size.
 * The writer keeps the slot of the next place, so that a place is found by a subtraction and the ring may have any length.
 */
export class Ring<T> {
  /** The oldest place that is kept. Above `last` when nothing is. */
  first = 1
  /** The newest place. */
  last = 0
  readonly #floor: number
  /** Sum of the sizes of what is kept. */
  bytes = 0

  #next = 0
  #oldest = 0
  readonly #slots: (T | undefined)[]
  readonly #indexes: Float64Array
  readonly #times: Float64Array
  readonly #sizes: Float64Array | undefined

  /** `slots` values at most; `sized` if `push` is given their sizes. */
  constructor(slots: number, floor: number, sized: boolean) {
    this.#floor = floor
    this.#slots = new Array<T | undefined>(slots)
    this.#indexes = new Float64Array(slots)
    this.#times = new Float64Array(slots)
    this.#sizes = sized ? new Float64Array(slots) : undefined
  }

  /** Stores `value` at the next place. The caller makes sure that a slot is free. */
  push(value: T, index: number, time: number, size: number): void {
    const slot = this.#next
    this.#slots[slot] = value
    this.#indexes[slot] = index
    this.#times[slot] = time
    if (this.#sizes) {
      this.#sizes[slot] = size
      this.bytes += size
    }
    this.#next = slot + 1 === this.#slots.length ? 0 : slot + 1
    this.last++
  }

  /** The newest index that is no longer kept: it stands in its slot until that is used again, which is after the next drop. */
  get floor(): number {
    if (this.first === 1) return this.#floor
    return this.#indexes[this.#oldest === 0 ? this.#slots.length - 1 : this.#oldest - 1] as number
  }

  /** Lets go of the oldest value. */
  drop(): void {
    const slot = this.#oldest
    this.#slots[slot] = undefined
    if (this.#sizes) this.bytes -= this.#sizes[slot] as number
    this.#oldest = slot + 1 === this.#slots.length ? 0 : slot + 1
    this.first++
  }

  /** The value at a kept place; `undefined` at any other. */
  at(place: number): T | undefined {
    return place < this.first || place > this.last ? undefined : this.#slots[this.#slotOf(place)]
  }

  /** Puts another value for the same batch at a kept place. */
  replace(place: number, value: T): void {
    this.#slots[this.#slotOf(place)] = value
  }

  /** The index at a kept place. */
  indexAt(place: number): number {
    return this.#indexes[this.#slotOf(place)] as number
  }

  /** The time at a kept place. */
  timeAt(place: number): number {
    return this.#times[this.#slotOf(place)] as number
  }

  #slotOf(place: number): number {
    const slot = this.#oldest + (place - this.first)
    return slot >= this.#slots.length ? slot - this.#slots.length : slot
  }
}
