import type { EventBuffer, Position } from './buffer.ts'
import type { Gap } from './event.ts'
import type { Signal } from './signal.ts'

/** What a reader had not seen: the loss, if any, and the batches after it. Shared by readers at one place: do not change it. */
export interface Delivery<T> {
  readonly gap?: Gap
  readonly batches: readonly T[]
  /** The place that it leads on from, and the one that it leads to. */
  readonly start: number
  readonly end: number
  /** The index at `end`. */
  readonly index: number
  /** The newest place when it was made. */
  readonly last: number
}

/** A reader that waits for the batch after `place`. */
export interface Waiter {
  readonly place: number
  settle(): void
}

/** Readers that wait at one place for one promise. */
export interface Group<T> {
  readonly place: number
  readonly index: number
  readonly promise: Promise<IteratorResult<Delivery<T>, undefined>>
  size: number
  /** What they got; `undefined` while they wait. */
  delivery: Delivery<T> | undefined
  settle(delivery: Delivery<T> | undefined, error: Error | undefined): void
}

export function newGroup<T>(place: number, index: number): Group<T> {
  let settle: Group<T>['settle'] = () => {}
  const promise = new Promise<IteratorResult<Delivery<T>, undefined>>((resolve, reject) => {
    settle = (delivery, error) => {
      group.delivery = delivery
      if (delivery) resolve({ done: false, value: delivery })
      else reject(error)
    }
  })
  const group: Group<T> = { place, index, promise, size: 0, delivery: undefined, settle }
  return group
}

/** A wait with a promise of its own. */
class Waiting<T> {
  readonly promise: Promise<IteratorResult<Delivery<T>, undefined>>
  resolve: (result: IteratorResult<Delivery<T>, undefined>) => void = ignore
  reject: (reason: unknown) => void = ignore

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
  }
}

/** A reader that pulls from an {@link EventBuffer}, made by its `read`. Ask for one delivery at a time. */
export class BufferReader<T extends { readonly index: number }>
  implements AsyncIterableIterator<Delivery<T>, undefined>
{
  /** The place this reader stands on. */
  place: number
  readonly #buffer: EventBuffer<T>
  readonly #signal: Signal | undefined
  #index: number
  #gap: Gap | undefined
  #group: Group<T> | undefined
  #waiting: Waiting<T> | undefined
  /** The abort listener; made by the first wait, for most readers have no signal. */
  #abort: (() => void) | undefined
  #ended = false

  constructor(buffer: EventBuffer<T>, { place, index, gap }: Position, signal?: Signal) {
    this.#buffer = buffer
    this.place = place
    this.#index = index
    this.#gap = gap
    this.#signal = signal
  }

  /** What this reader has not seen, at once; `undefined` if that is nothing. Throws the signal's reason or the error that ended the buffer. */
  take(): Delivery<T> | undefined {
    this.#arrive()
    if (this.#ended) return undefined
    if (this.#signal?.aborted) throw this.#signal.reason
    const delivery = this.#pull()
    if (!delivery && this.#buffer.error) {
      this.#release()
      throw this.#buffer.error
    }
    return delivery
  }

  /**
   * Waits for what this reader has not seen. Rejects as `take` throws, on every call. Done after `return()`.
   * A call before the last one has settled waits for that one first.
   */
  next(): Promise<IteratorResult<Delivery<T>, undefined>> {
    this.#arrive()
    const waiting = this.#group?.promise ?? this.#waiting?.promise
    if (waiting) return waiting.then(() => this.next())
    if (this.#ended) return Promise.resolve({ done: true, value: undefined })
    if (this.#signal?.aborted) return Promise.reject(this.#signal.reason)
    const delivery = this.#pull()
    if (delivery) return Promise.resolve({ done: false, value: delivery })
    if (this.#buffer.error) {
      this.#release()
      return Promise.reject(this.#buffer.error)
    }
    if (this.#signal) return this.#wait(this.#signal)
    this.#group = this.#buffer.join()
    return this.#group.promise
  }

  /** Ends this reader. A wait without a signal cannot be cut short: it ends with the next batch. */
  return(): Promise<IteratorResult<Delivery<T>, undefined>> {
    const result = { done: true, value: undefined } as const
    this.#ended = true
    this.#buffer.unpark(this)
    this.#release()?.resolve(result)
    return Promise.resolve(result)
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  /** Called by the buffer when there is something to read, or when it has ended. */
  settle(): void {
    const delivery = this.#pull()
    // The abort listener stays for the reader's life: adding one costs more than all the rest of a wait.
    const waiting = delivery ? this.#waiting : this.#release()
    this.#waiting = undefined
    if (delivery) waiting?.resolve({ done: false, value: delivery })
    else waiting?.reject(this.#buffer.error)
  }

  #pull(): Delivery<T> | undefined {
    const delivery = this.#buffer.after(this.place, this.#index)
    const gap = this.#gap
    if (delivery) this.#advance(delivery)
    if (!gap) return delivery
    this.#gap = undefined
    return joinGap(gap, delivery, this.place)
  }

  #advance(delivery: Delivery<T>): void {
    this.place = delivery.end
    this.#index = delivery.index
  }

  /** Moves to where the shared promise has brought this reader. */
  #arrive(): void {
    const delivery = this.#group?.delivery
    if (!delivery) return
    this.#group = undefined
    this.#advance(delivery)
  }

  #wait(signal: Signal): Promise<IteratorResult<Delivery<T>, undefined>> {
    if (!this.#abort) {
      this.#abort = () => {
        // It was added for one call: there is nothing to remove.
        this.#abort = undefined
        this.#buffer.unpark(this)
        this.#release()?.reject(signal.reason)
      }
      signal.addEventListener('abort', this.#abort, once)
    }
    const waiting = new Waiting<T>()
    this.#waiting = waiting
    this.#buffer.park(this)
    return waiting.promise
  }

  /** Takes the abort listener away, and gives back who waits. */
  #release(): Waiting<T> | undefined {
    if (this.#abort) this.#signal?.removeEventListener('abort', this.#abort)
    this.#abort = undefined
    const waiting = this.#waiting
    this.#waiting = undefined
    return waiting
  }
}

/** A reader that an {@link EventBuffer} calls, made by its `follow`. */
export class Follower<T extends { readonly index: number }> {
  /** The place this follower has read up to. */
  place: number
  stopped = false
  readonly #buffer: EventBuffer<T>
  #listener: (delivery: Delivery<T>) => void
  #onEnd: ((error: Error) => void) | undefined
  #index: number
  #gap: Gap | undefined
  #paused = false

  constructor(
    buffer: EventBuffer<T>,
    { place, index, gap }: Position,
    listener: (delivery: Delivery<T>) => void,
    onEnd: ((error: Error) => void) | undefined,
  ) {
    this.#buffer = buffer
    this.place = place
    this.#index = index
    this.#gap = gap
    this.#listener = listener
    this.#onEnd = onEnd
  }

  /** Not called until `resume`. What is dropped meanwhile is told as a gap. May be called by the listener itself. */
  pause(): void {
    this.#paused = true
  }

  /** Called again, soon, with what it missed. */
  resume(): void {
    if (!this.#paused || this.stopped) return
    this.#paused = false
    this.#buffer.schedule(this)
  }

  /** Never called again. Harmless when done twice. */
  stop(): void {
    if (this.stopped) return
    this.stopped = true
    this.#listener = ignore
    this.#onEnd = undefined
    this.#buffer.forget()
  }

  /** Called by the buffer: hands over a page. Answers whether this follower counts among the running ones. */
  serve(): boolean {
    if (this.#paused || this.stopped) return false
    const gap = this.#gap
    let delivery = this.#buffer.after(this.place, this.#index)
    if (gap) {
      delivery = joinGap(gap, delivery, this.place)
      this.#gap = undefined
    }
    if (delivery) {
      this.place = delivery.end
      this.#index = delivery.index
      try {
        this.#listener(delivery)
      } catch (error) {
        fail(this, error)
      }
    }
    const { error } = this.#buffer
    if (error && this.place >= this.#buffer.lastPlace && !this.#paused && !this.stopped) {
      const end = this.#onEnd ?? ignore
      this.stop()
      try {
        end(error)
      } catch (mistake) {
        fail(this, mistake)
      }
    }
    return !this.#paused && !this.stopped
  }
}

/** A listener's mistake must reach its author, and nobody else. Not a private method: those cost each instance 8 bytes. */
function fail<T extends { readonly index: number }>(follower: Follower<T>, error: unknown): void {
  follower.stop()
  void Promise.reject(error)
}

function joinGap<T>(gap: Gap, delivery: Delivery<T> | undefined, place: number): Delivery<T> {
  if (!delivery) return { gap, batches: [], start: place, end: place, last: place, index: gap.before - 1 }
  return { ...delivery, gap: { ...gap, before: delivery.gap?.before ?? gap.before } }
}

const once = { once: true }

function ignore(): void {}
