import { systemClock } from '../core/clock.ts'
import { SpillwayError } from '../core/errors.ts'
import { cell, type Layout } from './layout.ts'
import { hasWaitAsync, type Memory } from './memory.ts'
import { type Channel, host } from './runtime.ts'

/**
 * Blocks until TAIL is not `seen`, or `ms` milliseconds; answers whether it may have moved.
 * `seen` must be what was there before this call: with a later value a reader would sleep over what came in between.
 */
export function sleep(memory: Memory, seen: number, ms: number): boolean {
  memory.store(cell.wait, 1)
  return memory.wait(cell.tail, seen, ms) !== 'timed-out'
}

/**
 * Calls `wake` once TAIL is not `seen`, later in this turn at the soonest. One wait per ring and thread at a time: what
 * was begun is never given up, since runtimes keep a wait that nobody notifies for ever.
 */
export class Alarm {
  readonly #memory: Memory
  readonly #id: number
  readonly #wake: () => void
  #isSet = false
  #isOver = false
  #channel: Channel | undefined

  constructor(memory: Memory, { id }: Layout, wake: () => void) {
    this.#memory = memory
    this.#id = id
    this.#wake = wake
  }

  /** Harmless when it is set already: whatever has come since then wakes it. */
  set(seen: number): void {
    if (this.#isSet) return
    const waiting = hasWaitAsync() ? this.#waitAsync(seen) : this.#listen(seen)
    this.#isSet = true
    waiting?.then(this.#ring)
  }

  /** The writer has said its last word. A channel that stays open would keep the ring's memory. */
  close(): void {
    this.#isOver = true
    if (!this.#channel) return
    this.#channel.close()
    this.#channel = undefined
    // Somebody else may wait for the bell of that word, which nobody hears any more.
    void Promise.resolve().then(this.#ring)
  }

  readonly #ring = (): void => {
    if (!this.#isSet) return
    this.#isSet = false
    this.#wake()
  }

  #waitAsync(seen: number): Promise<unknown> {
    this.#memory.store(cell.wait, 1)
    return this.#memory.waitAsync(cell.tail, seen) ?? Promise.resolve()
  }

  /** Without `Atomics.waitAsync`, as in Firefox before 145, the writer rings a bell. */
  #listen(seen: number): Promise<void> | undefined {
    if (this.#isOver) return Promise.resolve()
    if (!this.#channel) {
      this.#channel = openBell(this.#id)
      this.#channel.onmessage = this.#ring
      // Browsers register a channel some time after it was made, and lose what others post before; what its own thread
      // posts comes after that. So this wakes it when it can hear, and it looks for what it has missed.
      const echo = new Bell(this.#id)
      echo.ring()
      echo.close()
    }
    this.#memory.store(cell.bell, 1)
    return this.#memory.load(cell.tail) === seen ? undefined : Promise.resolve()
  }
}

/** Wakes those who cannot wait for a ring's memory. */
export class Bell {
  readonly #id: number
  #channel: Channel | undefined

  constructor(id: number) {
    this.#id = id
  }

  ring(): void {
    this.#channel ??= openBell(this.#id)
    this.#channel.postMessage(0)
  }

  close(): void {
    // In a later turn: what was rung just now must arrive.
    systemClock.defer(() => this.#channel?.close())
  }
}

/** The channel by which the writer of a ring wakes readers that cannot wait for its memory. Throws `CONFIG` where there is none. */
function openBell(id: number): Channel {
  const { BroadcastChannel } = host
  if (!BroadcastChannel) {
    throw new SpillwayError(
      'CONFIG',
      'This runtime has neither Atomics.waitAsync nor BroadcastChannel. Use take() or nextSync().',
    )
  }
  const channel = new BroadcastChannel(`spillway ${id}`)
  channel.unref?.()
  return channel
}
